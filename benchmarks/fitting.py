"""Training a recurrent model: `model.fit` with attention pooling, compared with mean pooling.

Two more variants separate the costs: attention by dot products, and the mean of a hidden layer like that of additive attention.
"""

import numpy as np
from definitions import BACKENDS, Benchmark, Workload

# On PyTorch, Keras runs its LSTM step by step, ten times slower than elsewhere.
EXAMPLES = {"jax": 512, "tensorflow": 512, "torch": 64}

BENCHMARKS = [
    Benchmark(
        "fit",
        "fit LSTM(128) + pooling",
        "fitting",
        dict.fromkeys(BACKENDS, ("limelight", "mean", "limelight, dot", "hidden, mean")),
        dict.fromkeys(BACKENDS, (("limelight", "mean"), ("limelight, dot", "mean"))),
        {"length": 100, "size": 64, "units": 128, "batch": 32},
        fresh=True,
    )
]


def build(benchmark: Benchmark, variant: str) -> Workload:
    """Return one epoch of `model.fit`."""
    import keras

    import limelight as ll

    settings = benchmark.settings
    count = EXAMPLES[keras.backend.backend()]
    random = np.random.default_rng(7)
    x = random.normal(size=(count, settings["length"], settings["size"])).astype("float32")
    y = random.integers(0, 2, size=(count, 1)).astype("float32")
    keras.utils.set_random_seed(7)
    pooling = {
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
            *pooling[variant](),
            keras.layers.Dense(1, activation="sigmoid"),
        ]
    )
    model.compile("adam", "binary_crossentropy")
    return Workload(lambda: model.fit(x, y, batch_size=settings["batch"], epochs=1, verbose=0))
