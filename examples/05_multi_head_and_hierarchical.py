"""Many heads, and two levels: words make sentences, sentences make a document. On real news articles.

python examples/05_multi_head_and_hierarchical.py
"""

import limelight as ll
import keras
import numpy as np
import re
from keras import layers

SENTENCES, WORDS = 20, 30


def articles(limit: int | None) -> tuple:
    """Documents as ids (n, sentences, words) with zeros for what is missing, labels, the split, the sentences, the tokenizer."""
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
    """Heads among the words of a sentence, pooling to sentences, heads among these, pooling to the document."""
    words = keras.Input((SENTENCES, WORDS), dtype="int32")
    hidden = layers.Embedding(size, 64, mask_zero=True)(words)  # (B, sentences, words, 64) and its mask
    heads = ll.layers.MultiHeadAttention(4, 16, attention_axes=2, name="words")
    hidden = layers.Add()([hidden, heads(hidden, hidden)])
    # Pooling takes any number of leading axes. A sentence without words is masked in what follows.
    sentences, of_words = ll.layers.AttentionPooling(name="sentence")(hidden, return_attention_scores=True)
    heads = ll.layers.MultiHeadAttention(4, 16, name="sentences")
    sentences = layers.Add()([sentences, heads(sentences, sentences)])
    document, of_sentences = ll.layers.AttentionPooling(name="document")(sentences, return_attention_scores=True)
    topic = layers.Dense(classes, activation="softmax", name="topic")(layers.Dropout(0.3)(document))
    return keras.Model(words, {"topic": topic, "words": of_words, "sentences": of_sentences})


def main(epochs: int = 4, limit: int | None = None) -> dict[str, float]:
    """Train, print the accuracy, and show what the model read in one article."""
    keras.utils.set_random_seed(0)
    ids, dataset, train, test, texts, tokenizer = articles(limit)
    model = build(tokenizer.size, len(dataset.classes))
    model.compile("adam", {"topic": "sparse_categorical_crossentropy", "words": None, "sentences": None})
    model.fit(ids[train], {"topic": dataset.labels[train]}, epochs=epochs, batch_size=32, verbose=0)
    seen = model.predict(ids[test], verbose=0)
    accuracy = float((seen["topic"].argmax(-1) == dataset.labels[test]).mean())
    print(f"test accuracy {accuracy:.3f} on {len(test)} articles of {len(dataset.classes)} topics")
    first = texts[test[0]]
    sentence = int(seen["sentences"][0, : len(first)].argmax())
    word = int(seen["words"][0, sentence].argmax())
    tokens = tokenizer.encode([first[sentence]], length=WORDS)[0].tokens
    print(f'read most, with weight {seen["sentences"][0, sentence]:.2f}: "{first[sentence]}"')
    print(f'and in it, with weight {seen["words"][0, sentence, word]:.2f}: "{tokens[word]}"')
    padding = float(seen["words"][ids[test] == 0].sum() + seen["sentences"][~(ids[test] != 0).any(-1)].sum())
    return {"accuracy": accuracy, "padding": padding}


if __name__ == "__main__":
    main()
