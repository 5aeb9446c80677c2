"""How quick the machine is at the moment, as a small work of its own shows.

A machine that shares its processors with others is slower for seconds or minutes, and what computes suffers more than what
waits for memory: a ratio measured then says more of the neighbours than of the peers. What is small and always the same
tells when.
"""

import os
import time

# Threads that wait for the next product would do so by running, in the way of whatever is measured next.
os.environ["OPENBLAS_THREAD_TIMEOUT"] = "4"
import numpy as np

del os.environ["OPENBLAS_THREAD_TIMEOUT"]

SIZE = 512
TIMES = 16
# Slower than the best by so much is not quiet.
ENOUGH = 0.9


class Canary:
    """A product of two matrices, and the least time that it ever took."""

    def __init__(self) -> None:
        self.matrix = np.ones((SIZE, SIZE), "float32")
        self.best = float("inf")
        self.matrix @ self.matrix

    def seconds(self) -> float:
        """How long the product takes now: the least of some times."""
        found = []
        for _ in range(TIMES):
            start = time.perf_counter()
            self.matrix @ self.matrix
            found.append(time.perf_counter() - start)
        self.best = min(self.best, *found)
        return min(found)

    def quiet(self, seconds: float) -> bool:
        """Whether the machine is as quick, or nearly, as it was at its best."""
        return self.best >= ENOUGH * seconds
