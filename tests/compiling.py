"""Keep compilation cheap: tests compile much and run little."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras


@contextlib.contextmanager
def fast_compilation(enabled: bool = True) -> Iterator[None]:
    """Let JAX skip most optimizations inside the context, or not. Other backends are not changed."""
    if keras.backend.backend() != "jax":
        yield
        return
    import jax

    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", enabled)
    try:
        yield
    finally:
        jax.config.update("jax_disable_most_optimizations", before)


def compiler_options() -> dict[str, Any]:
    """Return options for `jax.jit` that restore a user's defaults where fast compilation is disabled."""
    import jax

    is_fast = jax.config.read("jax_disable_most_optimizations")
    return {} if is_fast or jax.default_backend() != "cpu" else {"xla_cpu_use_fusion_emitters": True}


def run_together(functions: Sequence[Callable[[], Any]]) -> list[Any]:
    """Return the results of functions without arguments. JAX compiles them as one program, which takes a third of the time."""
    if keras.backend.backend() != "jax":
        return [function() for function in functions]
    import jax

    return jax.jit(lambda: [function() for function in functions])()


def predict(model: keras.Model, inputs: Any) -> Any:
    """Return a model's outputs as numpy: compiled on JAX, eagerly on the other backends, which is faster there."""
    if keras.backend.backend() == "jax":
        return model.predict(inputs, batch_size=len(keras.tree.flatten(inputs)[0]), verbose=0)
    outputs = model(keras.tree.map_structure(keras.ops.convert_to_tensor, inputs), training=False)
    return keras.tree.map_structure(keras.ops.convert_to_numpy, outputs)
