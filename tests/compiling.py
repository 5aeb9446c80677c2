"""Tests that compile much and run little: code need not be fast in them, compiling must be."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import keras


@contextlib.contextmanager
def quickly() -> Iterator[None]:
    """Let JAX leave out most optimisations inside; nothing for the other backends."""
    if keras.backend.backend() != "jax":
        yield
        return
    import jax

    jax.config.update("jax_disable_most_optimizations", True)
    try:
        yield
    finally:
        jax.config.update("jax_disable_most_optimizations", False)


def at_once(function: Callable[..., Any], *arguments: Any) -> Any:
    """What a function returns. JAX compiles each step of one anew for each shape; all steps together take half as long."""
    if keras.backend.backend() != "jax":
        return function(*arguments)
    import jax

    return jax.jit(function)(*arguments)
