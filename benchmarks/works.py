"""The works to measure, their ways, and which ways are compared.

A module of works has `WORKS`, a list of `Work`, and `build(work, way)`, which makes the `Subject` of a measurement on the
backend that KERAS_BACKEND names. `MODULES` lists those that `run.py` knows.
"""

import dataclasses
import importlib
from collections.abc import Callable
from typing import Any

BACKENDS = ("jax", "tensorflow", "torch")
MODULES = ("attention", "fitting", "attention_statistics")


@dataclasses.dataclass(frozen=True)
class Work:
    """One piece of work, done in several ways.

    Args:
        name: one word, by which it is chosen.
        title: for the table.
        module: where it is built.
        ways: their names, for each backend that has any.
        compared: pairs (limelight, peer) of ways, for each backend. Where there is no peer, None.
        settings: lengths and the like.
        quick: whether a quick run has it.
        rounds: at most so many, for what takes long.
        fresh: whether it is done in several processes, one after another: what takes milliseconds is a tenth quicker or slower in
            all of a process, by where its memory happens to lie.
    """

    name: str
    title: str
    module: str
    ways: dict[str, tuple[str, ...]]
    compared: dict[str, tuple[tuple[str, str | None], ...]] = dataclasses.field(default_factory=dict)
    settings: dict[str, Any] = dataclasses.field(default_factory=dict)
    quick: bool = True
    rounds: int = 1000
    fresh: bool = False


@dataclasses.dataclass(frozen=True)
class Subject:
    """Something to run, built and compiled.

    Args:
        run: does the work once and returns when it is done.
        operations: floating point operations of the two products and their gradients, for the share of the peak; or None.
        error: from what `run` returned, its largest deviation from float64; or None.
    """

    run: Callable[[], Any]
    operations: float | None = None
    error: Callable[[Any], float] | None = None


def everything() -> list[Work]:
    """All works of all modules that are there."""
    found = []
    for name in MODULES:
        try:
            found += importlib.import_module(name).WORKS
        except ModuleNotFoundError as missing:
            if missing.name != name:
                raise
    return found


def named(name: str) -> Work:
    """Return the work with a name."""
    return next(work for work in everything() if work.name == name)
