"""Compare `capture(..., store="statistics")` of a long input with the model alone, in memory and processor seconds.

    KERAS_BACKEND=jax python benchmarks/captured_statistics.py --length 32768

A model of one layer of limelight runs in two fresh processes, in one of them captured.
"""

import argparse
import os
import resource
import subprocess
import sys
import time

os.environ.setdefault("KERAS_BACKEND", "jax")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in (("length", 32768), ("heads", 8), ("size", 64)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--run", choices=("plain", "statistics"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run:
        print(*measure(options), sep=",")
        return
    costs = {}
    for variant in ("plain", "statistics"):
        command = [sys.executable, __file__, "--run", variant]
        command += [text for name in ("length", "heads", "size") for text in (f"--{name}", f"{getattr(options, name)}")]
        process = subprocess.run(command, capture_output=True, text=True, check=True)
        costs[variant] = [float(number) for number in process.stdout.split()[-1].split(",")]
        print(
            f"{variant:7} peak {costs[variant][0] / 2**20:7,.0f} MB   processor {costs[variant][1]:7.1f} s, compiling included"
        )
    additional = (costs["statistics"][0] - costs["plain"][0]) / 2**20
    print(f"{os.environ['KERAS_BACKEND']}: {additional:,.0f} MB over the model's own")


def measure(options: argparse.Namespace) -> tuple[int, float]:
    """Return the peak memory of the process, in bytes, and the processor seconds of one run."""
    import keras
    import numpy as np

    import limelight as ll

    width = options.heads * options.size
    steps = keras.Input((options.length, width))
    model = keras.Model(steps, ll.layers.MultiHeadAttention(options.heads, options.size, name="layer")(steps, steps))
    data = np.random.default_rng(7).normal(size=(1, options.length, width)).astype("float32")
    start = time.process_time()
    if options.run == "plain":
        model.predict(data, verbose=0)
    else:
        statistics = ll.capture(model, data, store="statistics")["layer"].statistics()
        if not np.allclose(statistics.mass, 1, atol=1e-3):
            raise ValueError(f"Weights of each query must sum to one. Received: sums down to {statistics.mass.min()}.")
    seconds = time.process_time() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024, seconds


if __name__ == "__main__":
    main()
