"""The formula itself: all scores at once. The reference for every other path, and the fastest for short inputs."""

from typing import Any

from keras import ops

from limelight.engine.call import AttentionCall
from limelight.engine.dense_block import mixture


def output(call: AttentionCall, value: Any, *, dropout: float = 0.0, seed: Any = None) -> Any:
    """The output (B, N, T, V) of a question for values (B, K, S, V)."""
    value = shared_between_heads(value, call.query)
    return ops.cast(mixture(weights(call), value, call.block, dropout, seed), value.dtype)


def weights(call: AttentionCall) -> Any:
    """All weights, (B, N, T, S), in float32 or wider."""
    key = shared_between_heads(call.key, call.query)
    scores = call.score(call.query, key, block=call.block)
    mask = None if call.mask is None else call.mask(call.block)
    scores = ops.broadcast_to(scores, full_shape(call, scores))
    return call.normalizer(scores, mask, block=call.block)


def shared_between_heads(tensor: Any, query: Any) -> Any:
    """Keys or values (B, K, S, H) repeated for N query heads; K = 1 and K = N stay as they are."""
    heads, kept = query.shape[1], tensor.shape[1]
    return tensor if kept in (1, heads) else ops.repeat(tensor, heads // kept, axis=1)


def full_shape(call: AttentionCall, scores: Any) -> tuple:
    """(B, N, T, S), from the tile, with B and N taken from whichever of query and scores has them."""
    shape = ops.shape(call.query)
    rows, columns = call.block.rows.length, call.block.columns.length
    batch = ops.shape(scores)[0] if scores.shape[0] != 1 else shape[0]
    heads = scores.shape[1] if scores.shape[1] != 1 else shape[1]
    return (batch, heads, rows, columns)
