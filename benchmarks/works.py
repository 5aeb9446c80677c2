"""What is measured, in which ways, and what is asked of it.

A module of works has `WORKS`, a list of `Work`, and `build(work, way)`, which makes the `Subject` of a measurement on the
backend that KERAS_BACKEND names. `MODULES` lists those that `run.py` knows.
"""

import dataclasses
import importlib
from collections.abc import Callable
from typing import Any

BACKENDS = ("jax", "tensorflow", "torch")
MODULES = ("attention", "fitting", "survey")


@dataclasses.dataclass(frozen=True)
class Target:
    """What is asked of one way against another, in one run; or of one way alone.

    Args:
        ours, peer: two ways of a work.
        speed: at least so many times the peer's speed.
        memory: at most the peer's memory divided by this; None where nothing is asked.
        most: where there is no peer, at most so many bytes.
    """

    ours: str
    peer: str | None = None
    speed: float = 0.0
    memory: float | None = None
    most: int | None = None


@dataclasses.dataclass(frozen=True)
class Work:
    """One piece of work, done in several ways.

    Args:
        name: one word, by which it is chosen.
        title: for the table.
        module: where it is built.
        ways: their names, for each backend that has any.
        targets: for each backend.
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
    targets: dict[str, tuple[Target, ...]] = dataclasses.field(default_factory=dict)
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
    """The work with a name."""
    return next(work for work in everything() if work.name == name)
