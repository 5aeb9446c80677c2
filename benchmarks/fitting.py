"""Training a recurrent model: `model.fit` with attention pooling beside the same with the mean.

Attention that is a dot product, and the mean of a hidden layer as the attention has one, tell what of its cost is due to what.
"""

import numpy as np
from works import BACKENDS, Subject, Work

# On PyTorch, Keras runs its LSTM step by step, ten times slower than on the others.
EXAMPLES = {"jax": 512, "tensorflow": 512, "torch": 64}

WORKS = [
    Work(
        "fit",
        "fit LSTM(128) + pooling",
        "fitting",
        dict.fromkeys(BACKENDS, ("limelight", "mean", "limelight, dot", "hidden, mean")),
        dict.fromkeys(BACKENDS, (("limelight", "mean"), ("limelight, dot", "mean"))),
        {"length": 100, "size": 64, "units": 128, "batch": 32},
        fresh=True,
    )
]


def build(work: Work, way: str) -> Subject:
    """One epoch of `model.fit`."""
    import keras

    import limelight as ll

    settings = work.settings
    count = EXAMPLES[keras.backend.backend()]
    random = np.random.default_rng(7)
    x = random.normal(size=(count, settings["length"], settings["size"])).astype("float32")
    y = random.integers(0, 2, size=(count, 1)).astype("float32")
    keras.utils.set_random_seed(7)
    reading = {
        "limelight": lambda: [ll.layers.AttentionPooling()],
        "limelight, dot": lambda: [ll.layers.AttentionPooling(score="dot")],
        "mean": lambda: [keras.layers.GlobalAveragePooling1D()],
        "hidden, mean": lambda: [
            keras.layers.Dense(settings["units"], "tanh"),
            keras.layers.GlobalAveragePooling1D(),
        ],
    }
    model = keras.Sequential(
        [
            keras.Input((settings["length"], settings["size"])),
            keras.layers.LSTM(settings["units"], return_sequences=True),
            *reading[way](),
            keras.layers.Dense(1, activation="sigmoid"),
        ]
    )
    model.compile("adam", "binary_crossentropy")
    return Subject(lambda: model.fit(x, y, batch_size=settings["batch"], epochs=1, verbose=0))
