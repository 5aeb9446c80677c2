"""JAX: paths compiled once for parts of the same kind and arrays of the same shapes, also where nobody compiles around them.

Loops that are traced anew in every call would be compiled anew in every call.
"""

import functools
from collections.abc import Callable, Hashable
from typing import Any

import jax

from limelight.core.block import Block, Slice
from limelight.engine import partition
from limelight.engine.call import AttentionCall


def run(function: Callable[..., Any], call: AttentionCall, *arrays: Any, **settings: Hashable) -> Any:
    """The function of a question, of arrays and of settings, compiled.

    Args:
        function: of the question, the arrays, and the settings by name.
        question: what is asked.
        arrays: whatever else is traced; None stays None.
        settings: what the compiled code depends on.
    """
    skeleton, tensors = partition.take(call)
    block = call.block
    spans = tuple(
        (span.total, span.start, span.size, None if span.indices is None else tuple(span.indices))
        for span in (block.batch, block.heads, block.rows, block.columns)
    )
    fixed = tuple(sorted(settings.items()))
    return _run(function, skeleton, spans, fixed, call.query, call.key, tensors, arrays)


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3))
def _run(
    function: Callable[..., Any],
    skeleton: partition.Skeleton,
    spans: tuple,
    settings: tuple,
    query: Any,
    key: Any,
    tensors: Any,
    arrays: tuple,
) -> Any:
    batch, heads, rows, columns = (Slice(*span) for span in spans)
    block = Block(batch, heads, rows, columns)
    bare: Any = None
    call = AttentionCall(query, key, bare, bare, bare, block)
    with skeleton.filled(call, tensors) as asked:
        return function(asked, *arrays, **dict(settings))
