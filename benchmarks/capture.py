"""Measure the cost of capture: `AttentionExtractor(model).predict`, compared with `model.predict`.

    KERAS_BACKEND=jax python benchmarks/capture.py --length 2048 --layers 6 --repeats 5

Runs are interleaved, after one of each to warm up. Prints the medians of wall time and of processor seconds.
"""

import argparse
import os
import statistics
import time

os.environ.setdefault("KERAS_BACKEND", "jax")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np

import limelight as ll


def build_encoder(length: int, layers: int, heads: int, size: int) -> keras.Model:
    """Return an encoder of Keras's own layers, with dropout as usual."""
    steps = keras.Input((length, heads * size))
    x = steps
    for _ in range(layers):
        attended = keras.layers.MultiHeadAttention(heads, size, dropout=0.1)(x, x)
        x = keras.layers.LayerNormalization()(x + attended)
        hidden = keras.layers.Dense(4 * heads * size, activation="gelu")(x)
        x = keras.layers.LayerNormalization()(x + keras.layers.Dense(heads * size)(hidden))
    return keras.Model(steps, x)


def time_call(function, *args) -> tuple[float, float]:
    """Return the wall and processor seconds of a call."""
    wall, processor = time.perf_counter(), time.process_time()
    function(*args)
    return time.perf_counter() - wall, time.process_time() - processor


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, value in (("length", 2048), ("layers", 6), ("heads", 8), ("size", 64), ("repeats", 5)):
        parser.add_argument(f"--{name}", type=int, default=value)
    options = parser.parse_args()
    model = build_encoder(options.length, options.layers, options.heads, options.size)
    data = np.random.default_rng(7).normal(size=(1, options.length, options.heads * options.size)).astype("float32")
    extractor = ll.AttentionExtractor(model)
    runs = {"plain": lambda: model.predict(data, verbose=0), "captured": lambda: extractor.predict(data)}
    times = {name: [] for name in runs}
    for round_number in range(options.repeats + 1):
        for name, run in runs.items():
            seconds = time_call(run)
            if round_number:
                times[name].append(seconds)
    medians = {
        name: [statistics.median(column) for column in zip(*rounds, strict=True)] for name, rounds in times.items()
    }
    for name, (wall, processor) in medians.items():
        print(f"{name:9} wall {wall:7.3f} s   processor {processor:7.3f} s")
    ratios = [captured / plain for captured, plain in zip(medians["captured"], medians["plain"], strict=True)]
    print(f"captured / plain on {keras.backend.backend()}: wall {ratios[0]:.2f}, processor {ratios[1]:.2f}")


if __name__ == "__main__":
    main()
