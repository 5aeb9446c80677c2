"""The present speed of the machine, measured by a small product.

A machine that shares its processors with others is slower for seconds or minutes, and what computes suffers more than what
waits for memory: a ratio measured then says more of the neighbours than of the peers. What is small and always the same
tells when.
"""

import os
import time

# Threads that wait for the next product would spin and disturb the next measurement.
os.environ["OPENBLAS_THREAD_TIMEOUT"] = "4"
import numpy as np

del os.environ["OPENBLAS_THREAD_TIMEOUT"]

SIZE = 512
TIMES = 16
# Slower than the best by so much is not quiet.
ENOUGH = 0.9


class Canary:
    """A product of two matrices, and the least time that it took so far."""

    def __init__(self) -> None:
        self.matrix = np.ones((SIZE, SIZE), "float32")
        self.best = float("inf")
        self.matrix @ self.matrix

    def seconds(self) -> float:
        """Return the seconds that the product takes now, the least of several runs."""
        seconds_of_runs = []
        for _ in range(TIMES):
            start = time.perf_counter()
            self.matrix @ self.matrix
            seconds_of_runs.append(time.perf_counter() - start)
        self.best = min(self.best, *seconds_of_runs)
        return min(seconds_of_runs)

    def quiet(self, seconds: float) -> bool:
        """Return True if the machine is nearly as fast as at its best."""
        return self.best >= ENOUGH * seconds
