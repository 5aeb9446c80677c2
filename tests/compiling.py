"""Tests that compile much and run little: code need not be fast in them, compiling must be."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras


@contextlib.contextmanager
def quickly(quick: bool = True) -> Iterator[None]:
    """Let JAX leave out most optimisations inside, or not; nothing for the other backends."""
    if keras.backend.backend() != "jax":
        yield
        return
    import jax

    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", quick)
    try:
        yield
    finally:
        jax.config.update("jax_disable_most_optimizations", before)


def options() -> dict[str, Any]:
    """What `jax.jit` needs for code as users have it, where that is asked for."""
    import jax

    quick = jax.config.read("jax_disable_most_optimizations")
    return {} if quick or jax.default_backend() != "cpu" else {"xla_cpu_use_fusion_emitters": True}


def at_once(functions: Sequence[Callable[[], Any]]) -> list[Any]:
    """What functions of nothing return. JAX compiles each step of one anew for each shape: together they take a third as long."""
    if keras.backend.backend() != "jax":
        return [function() for function in functions]
    import jax

    return jax.jit(lambda: [function() for function in functions])()


def predict(model: keras.Model, inputs: Any) -> Any:
    """Return a model's outputs as numpy: compiled on JAX, eagerly on the other backends, whichever is quicker there."""
    if keras.backend.backend() == "jax":
        return model.predict(inputs, batch_size=len(keras.tree.flatten(inputs)[0]), verbose=0)
    outputs = model(keras.tree.map_structure(keras.ops.convert_to_tensor, inputs), training=False)
    return keras.tree.map_structure(keras.ops.convert_to_numpy, outputs)
