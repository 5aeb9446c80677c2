"""JAX: paths compiled once for parts of the same kind and arrays of the same shapes, also where nobody compiles around them.

Loops that are traced anew in every call would be compiled anew in every call.
"""

import functools
from collections.abc import Callable, Hashable
from typing import Any

import jax

from limelight.engine import held
from limelight.question import Question
from limelight.tile import Span, Tile


def run(function: Callable[..., Any], question: Question, *arrays: Any, **settings: Hashable) -> Any:
    """The function of a question, of arrays and of settings, compiled.

    Args:
        function: of the question, the arrays, and the settings by name.
        question: what is asked.
        arrays: whatever else is traced; None stays None.
        settings: what the compiled code depends on.
    """
    skeleton, tensors = held.take(question)
    tile = question.tile
    spans = tuple(
        (span.total, span.start, span.size, None if span.picked is None else tuple(span.picked))
        for span in (tile.batch, tile.heads, tile.rows, tile.columns)
    )
    fixed = tuple(sorted(settings.items()))
    return _run(function, skeleton, spans, fixed, question.query, question.key, tensors, arrays)


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3))
def _run(
    function: Callable[..., Any],
    skeleton: held.Skeleton,
    spans: tuple,
    settings: tuple,
    query: Any,
    key: Any,
    tensors: Any,
    arrays: tuple,
) -> Any:
    batch, heads, rows, columns = (Span(*span) for span in spans)
    tile = Tile(batch, heads, rows, columns)
    bare: Any = None
    question = Question(query, key, bare, bare, bare, tile)
    with skeleton.filled(question, tensors) as asked:
        return function(asked, *arrays, **dict(settings))
