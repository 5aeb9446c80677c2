"""Classify news articles with many heads on two levels: words make sentences, sentences make a document.

python examples/05_multi_head_and_hierarchical.py
"""

import limelight as ll
import keras
import numpy as np
import re
from keras import layers
from pathlib import Path

SENTENCES, WORDS = 20, 30


def load_articles(limit: int | None) -> tuple:
    """Return zero-padded ids (n, sentences, words), the data set, the split, the sentences, and the tokenizer."""
    dataset = ll.data.load("bbc-news")
    split = ll.data.split(dataset)
    train, test = split.train[:limit], split.test[:limit]
    texts = {index: re.split(r"(?<=[.!?])\s+|\n+", dataset.inputs[index])[:SENTENCES] for index in (*train, *test)}
    tokenizer = ll.data.Tokenizer.train([dataset.inputs[index] for index in train], size=10_000)
    ids = np.zeros((len(dataset), SENTENCES, WORDS), "int32")
    for index, sentences in texts.items():
        for row, encoding in enumerate(tokenizer.encode(sentences, length=WORDS)):
            ids[index, row, : len(encoding.ids)] = encoding.ids
    return ids, dataset, train, test, texts, tokenizer


def build(size: int, classes: int) -> keras.Model:
    """Build heads over the words, pooling to sentences, heads over the sentences, and pooling to the document."""
    words = keras.Input((SENTENCES, WORDS), dtype="int32")
    hidden = layers.Embedding(size, 64, mask_zero=True)(words)  # (B, sentences, words, 64) and its mask
    heads = ll.layers.MultiHeadAttention(4, 16, attention_axes=2, name="words")
    hidden = layers.Add()([hidden, heads(hidden, hidden)])
    # Pooling takes any number of leading axes. Later layers get a mask of the sentences that have words.
    sentences, word_weights = ll.layers.AttentionPooling(name="sentence")(hidden, return_attention_scores=True)
    heads = ll.layers.MultiHeadAttention(4, 16, name="sentences")
    sentences = layers.Add()([sentences, heads(sentences, sentences)])
    document, sentence_weights = ll.layers.AttentionPooling(name="document")(sentences, return_attention_scores=True)
    topic = layers.Dense(classes, activation="softmax", name="topic")(layers.Dropout(0.3)(document))
    return keras.Model(words, {"topic": topic, "words": word_weights, "sentences": sentence_weights})


def main(epochs: int = 4, limit: int | None = None, picture: Path | None = None) -> dict[str, float]:
    """Train, print the accuracy, and show what the model attends to in one article."""
    keras.utils.set_random_seed(0)
    ids, dataset, train, test, texts, tokenizer = load_articles(limit)
    model = build(tokenizer.size, len(dataset.classes))
    model.compile("adam", {"topic": "sparse_categorical_crossentropy", "words": None, "sentences": None})
    model.fit(ids[train], {"topic": dataset.labels[train]}, epochs=epochs, batch_size=32, verbose=0)
    outputs = model.predict(ids[test], verbose=0)
    accuracy = float((outputs["topic"].argmax(-1) == dataset.labels[test]).mean())
    print(f"test accuracy {accuracy:.3f} on {len(test)} articles of {len(dataset.classes)} topics")
    first = texts[test[0]]
    sentence = int(outputs["sentences"][0, : len(first)].argmax())
    word = int(outputs["words"][0, sentence].argmax())
    tokens = tokenizer.encode([first[sentence]], length=WORDS)[0].tokens
    print(f'largest weight of a sentence, {outputs["sentences"][0, sentence]:.2f}: "{first[sentence]}"')
    print(f'largest weight of a word in it, {outputs["words"][0, sentence, word]:.2f}: "{tokens[word]}"')
    padding = float(outputs["words"][ids[test] == 0].sum() + outputs["sentences"][~(ids[test] != 0).any(-1)].sum())
    if picture is not None:
        weights = outputs["words"][0, sentence, : len(tokens)].ravel()
        ll.plot.save(picture, ll.plot.text(tokens, weights, title="the sentence with the largest weight"))
    return {"accuracy": accuracy, "padding": padding}


if __name__ == "__main__":
    main()
