"""The present speed of the machine, measured by a small product of matrices.

A machine that shares its processors with others is slower for seconds or minutes, and more so for computation than for access to
memory, so that ratios measured then are biased. The time of a small product that never changes shows when.
"""

import os
import time

# Threads that wait for the next product must not spin during the next measurement.
os.environ["OPENBLAS_THREAD_TIMEOUT"] = "4"
import numpy as np

del os.environ["OPENBLAS_THREAD_TIMEOUT"]

SIZE = 512
REPEATS = 16
# The machine is quiet if it reaches this fraction of its best speed.
QUIET_FRACTION = 0.9


class Canary:
    """A product of two matrices, and its shortest time so far."""

    def __init__(self) -> None:
        self.matrix = np.ones((SIZE, SIZE), "float32")
        self.best = float("inf")
        self.matrix @ self.matrix

    def seconds(self) -> float:
        """Return the seconds that the product takes now, the minimum of several runs."""
        times = []
        for _ in range(REPEATS):
            start = time.perf_counter()
            self.matrix @ self.matrix
            times.append(time.perf_counter() - start)
        self.best = min(self.best, *times)
        return min(times)

    def quiet(self, seconds: float) -> bool:
        """Return True if a product of so many seconds shows that the machine is nearly as fast as at its best."""
        return self.best >= QUIET_FRACTION * seconds
