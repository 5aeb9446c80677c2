"""JAX: compiled functions of attention calls and of models."""

import functools
from collections.abc import Callable, Hashable
from typing import Any

import jax
from jax.extend import core

from limelight.core.block import Block, Slice
from limelight.engine.call import AttentionCall
from limelight.engine.jax import operations
from limelight.engine.partition import StaticParts, combine, partition


def run_compiled(function: Callable[..., Any], call: AttentionCall, *arrays: Any, **settings: Hashable) -> Any:
    """Return `function(call, *arrays, **settings)`, compiled once for equal parts, settings and shapes.

    A loop that was traced anew in every call would be compiled anew in every call.

    Args:
        function: A function of module level.
        call: The attention call.
        arrays: Further arrays to trace; None stays None.
        settings: Hashable values that the compiled code depends on.
    """
    static, tensors = partition(call)
    block = call.block
    slices = tuple(
        (part.total, part.start, part.size, None if part.indices is None else tuple(part.indices))
        for part in (block.batch, block.heads, block.rows, block.columns)
    )
    return _run_compiled(
        function, static, slices, tuple(sorted(settings.items())), call.query, call.key, tensors, arrays
    )


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3))
def _run_compiled(
    function: Callable[..., Any],
    static: StaticParts,
    slices: tuple,
    settings: tuple,
    query: Any,
    key: Any,
    tensors: Any,
    arrays: tuple,
) -> Any:
    batch, heads, rows, columns = (Slice(*part) for part in slices)
    undefined: Any = None
    call = AttentionCall(query, key, undefined, undefined, undefined, Block(batch, heads, rows, columns))
    with combine(static, tensors, call) as combined:
        return function(combined, *arrays, **dict(settings))


def trace_state() -> Any:
    """Return an object that is equal within one trace."""
    with operations.unobserved():
        return core.get_opaque_trace_state(convention="limelight")
