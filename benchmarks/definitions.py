"""Benchmarks, their variants, and which variants are compared.

A module of benchmarks has `BENCHMARKS`, a list of `Benchmark`, and `build(benchmark, variant)`, which returns a `Workload` for
the backend that KERAS_BACKEND names. `run.py` runs those of `MODULES`.
"""

import dataclasses
import importlib
from collections.abc import Callable
from typing import Any

BACKENDS = ("jax", "tensorflow", "torch")
MODULES = ("attention", "fitting", "attention_statistics")


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """One computation, in several variants.

    Args:
        name: The name by which it is selected on the command line.
        title: Its name in the table.
        module: The module that builds it.
        variants: The names of the variants of each backend.
        compared: Pairs (limelight, peer) of variants for each backend; the peer is None if there is none.
        settings: Lengths and other sizes.
        quick: Include it in a quick run.
        rounds: The largest number of rounds, for long benchmarks.
        fresh: Measure it in several processes: where the memory of a process lies can change times of milliseconds by a tenth.
    """

    name: str
    title: str
    module: str
    variants: dict[str, tuple[str, ...]]
    compared: dict[str, tuple[tuple[str, str | None], ...]] = dataclasses.field(default_factory=dict)
    settings: dict[str, Any] = dataclasses.field(default_factory=dict)
    quick: bool = True
    rounds: int = 1000
    fresh: bool = False


@dataclasses.dataclass(frozen=True)
class Workload:
    """A function to measure, built and compiled.

    Args:
        run: Computes the result once and returns when it is done.
        operations: Floating-point operations of the two products and their gradients; None if they are not counted.
        error: Returns the largest deviation of a result from float64; None if it is not checked.
    """

    run: Callable[[], Any]
    operations: float | None = None
    error: Callable[[Any], float] | None = None


def load_benchmarks() -> list[Benchmark]:
    """Return the benchmarks of all modules that exist."""
    benchmarks = []
    for name in MODULES:
        try:
            benchmarks += importlib.import_module(name).BENCHMARKS
        except ModuleNotFoundError as error:
            if error.name != name:
                raise
    return benchmarks


def get_benchmark(name: str) -> Benchmark:
    """Return the benchmark of a name."""
    return next(benchmark for benchmark in load_benchmarks() if benchmark.name == name)
