"""Models whose weights are set by hand, so that what they read is known, and texts for them."""

import keras
import numpy as np
from keras import ops

import limelight as ll

# Ids: 2 and 3 decide the class, 4 is a decoy, 5 to 19 are fillers.
GOOD, BAD, DECOY = 2, 3, 4
VOCABULARY, WIDTH = 20, 4
CLASS, SECOND, LOOK = 0, 1, 2  # features of an embedding


def make_texts(count, seed=0, length=12):
    """Return ids of texts with GOOD or BAD and the decoy at random places, the classes, and marks of the deciding word."""
    random = np.random.default_rng(seed)
    texts, labels, marks = [], [], []
    for index in range(count):
        ids = random.integers(5, VOCABULARY, random.integers(length // 2, length))
        places = random.choice(len(ids), 2, replace=False)
        ids[places] = GOOD if index % 2 else BAD, DECOY
        texts.append(ids.astype("int32"))
        labels.append(index % 2)
        marks.append(np.isin(ids, (GOOD, BAD)))
    return texts, np.array(labels), marks


def make_pairs(count, seed=0, length=12):
    """Return texts that hold both GOOD and BAD (class 1), or one of them, and marks of both words where there are both."""
    random = np.random.default_rng(seed)
    texts, labels, marks = [], [], []
    for index in range(count):
        ids = random.integers(5, VOCABULARY, random.integers(length // 2, length))
        places = random.choice(len(ids), 2, replace=False)
        ids[places[0]] = GOOD
        ids[places[1]] = BAD if index % 2 else GOOD
        texts.append(ids.astype("int32"))
        labels.append(index % 2)
        marks.append(np.isin(ids, (GOOD, BAD)))
    return texts, np.array(labels), marks


def _embed(features):
    table = np.zeros((VOCABULARY, WIDTH), "float32")
    # A little noise, so that no two tokens have the same score.
    table[2:, 3] = np.linspace(-0.1, 0.1, VOCABULARY - 2)
    for (word, feature), value in features.items():
        table[word, feature] = value
    words = keras.Input((None,), dtype="int32")
    embedding = keras.layers.Embedding(VOCABULARY, WIDTH, name="embedding")
    vectors = embedding(words)
    embedding.set_weights([table])
    return words, vectors, ops.not_equal(words, 0)


def _pool(vectors, mask, strength):
    pooling = ll.layers.AttentionPooling(score=ll.scores.Dot(scale=1.0), name="pool")
    pooled = pooling(vectors, mask=mask)
    query = np.zeros((1, WIDTH), "float32")
    query[0, LOOK], query[0, 3] = strength, 0.5
    pooling.set_weights([query])
    return pooled


def _classify(features, kernel, bias=(0.0, 0.0)):
    layer = keras.layers.Dense(2, "softmax", name="classes")
    outputs = layer(features)
    layer.set_weights([np.asarray(kernel, "float32"), np.asarray(bias, "float32")])
    return outputs


def planted_model():
    """Attention looks at the word that decides."""
    look = {(GOOD, LOOK): 1.0, (BAD, LOOK): 1.0}
    words, vectors, mask = _embed({(GOOD, CLASS): 1.0, (BAD, CLASS): -1.0, **look})
    kernel = np.zeros((WIDTH, 2))
    kernel[CLASS] = -3, 3
    return keras.Model(words, _classify(_pool(vectors, mask, 4.0), kernel), name="planted")


def pair_model():
    """Attention looks at the two words of which both must be there."""
    look = {(GOOD, LOOK): 1.0, (BAD, LOOK): 1.0}
    words, vectors, mask = _embed({(GOOD, CLASS): 1.0, (BAD, SECOND): 1.0, **look})
    pooled = _pool(vectors, mask, 4.0)
    present = keras.layers.Dense(2, "tanh", use_bias=False)
    features = present(pooled)
    kernel = np.zeros((WIDTH, 2), "float32")
    kernel[CLASS, 0] = kernel[SECOND, 1] = 4.0
    present.set_weights([kernel])
    return keras.Model(words, _classify(features, [[-3, 3], [-3, 3]], (4.5, -4.5)), name="pair")


def decoy_model():
    """Attention looks at the decoy; the prediction comes from the mean of all words."""
    words, vectors, mask = _embed({(GOOD, CLASS): 1.0, (BAD, CLASS): -1.0, (DECOY, LOOK): 1.0})
    attended = _pool(vectors, mask, 4.0)
    mean = keras.layers.GlobalAveragePooling1D()(vectors, mask=mask)
    kernel = np.zeros((2 * WIDTH, 2))
    kernel[WIDTH + CLASS] = -20, 20
    # The decoy's own feature is read, but weighs little.
    kernel[LOOK] = 0.01, -0.01
    return keras.Model(words, _classify(ops.concatenate([attended, mean], axis=-1), kernel), name="decoy")
