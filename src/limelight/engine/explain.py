"""The path of an attention that is not computed, from shapes alone."""

import dataclasses
from typing import Any

import keras
import numpy as np

from limelight import masks, normalizers, scores
from limelight.core.block import Block
from limelight.core.component import is_tensor
from limelight.engine import implementations, thresholds
from limelight.engine.call import AttentionCall, check_shapes, explicit, make_call
from limelight.engine.implementations import Implementation


def explained(query: Any, key: Any, *, score: Any, mask: Any, normalizer: Any, dropout: float) -> Implementation:
    """The path for queries and keys, or for their shapes."""
    if not 0 <= dropout < 1:
        raise ValueError(f"`dropout` must be in [0, 1). Received: dropout={dropout}.")
    query, key = symbol(query, "query"), symbol(key, "key")
    if isinstance(mask, (list, tuple)) or (is_tensor(mask) and not isinstance(mask, keras.KerasTensor)):
        mask = explicit(mask, tuple(query.shape))
    elif isinstance(mask, keras.KerasTensor):
        mask = masks.ArrayMask(np.ones((1, 1), bool))
    check_shapes(query, key)
    given = [with_heads(one.shape) for one in (query, key)]
    # Parts that learn are built, and the score is prepared, on one query and one key; the sizes are put back afterwards.
    small = [np.zeros((1, heads, 1, size), "float32") for _, heads, _, size in given]
    normalizer = normalizers.get(normalizer)
    call = implementations.ready(make_call(*small, score=scores.get(score), normalizer=normalizer))
    symbols = [keras.KerasTensor(shape, one.dtype) for shape, one in zip(given, (query, key), strict=True)]
    (batch, heads, rows, _), columns = given[0], given[1][2]
    block = Block.full(batch, heads, rows, columns)
    call = dataclasses.replace(call, query=symbols[0], key=symbols[1], mask=masks.get(mask), block=block)
    if keras.backend.backend() == "tensorflow" and thresholds.forced() is None and unknown(call):
        return Implementation("dense", "TensorFlow must know the lengths before the model runs to go block by block.")
    return implementations.choose(call, dropout=dropout)


def unknown(call: AttentionCall) -> bool:
    """Whether the lengths of a question are known only when the model runs."""
    return not implementations.broadcast(call) and implementations.size(call) is None


def symbol(given: Any, name: str) -> Any:
    """Something with the shape of queries or keys, which were given as such or as their shape."""
    if is_tensor(given):
        return given
    lengths = isinstance(given, (list, tuple)) and all(one is None or isinstance(one, int) for one in given)
    if not lengths:
        raise TypeError(f"`{name}` must be a tensor or a shape such as (None, 8, 4096, 64). Received: {given!r}.")
    return keras.KerasTensor(tuple(given))


def with_heads(shape: tuple) -> tuple:
    """A shape (..., N, T, H) as (B, N, T, H): leading axes merged, missing ones added."""
    if len(shape) < 4:
        return (*(shape[:-2] or (1,)), 1, *shape[-2:])
    lead = shape[:-3]
    return (None if None in lead else int(np.prod(lead)), *shape[-3:])
