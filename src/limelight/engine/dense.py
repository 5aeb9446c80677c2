"""The formula: all scores at once, or one block of them.

It is the reference for every other implementation, and the fastest one for short inputs.
"""

import dataclasses
from typing import Any

from keras import ops

from limelight.core.block import Block
from limelight.core.precision import accumulation_dtype, upcast
from limelight.core.random import dropout_mask
from limelight.engine.call import AttentionCall
from limelight.scores import Dot


def output(call: AttentionCall, value: Any, *, dropout: float = 0.0, seed: Any = None) -> Any:
    """Compute the output (B, N, T, V) of a call for values (B, K, S, V)."""
    value = repeat_heads(value, call.query)
    return ops.cast(apply_weights(weights(call), value, call.block, dropout, seed), value.dtype)


def weights(call: AttentionCall) -> Any:
    """Compute all weights, (B, N, T, S), in float32 or wider."""
    scores = call.score(call.query, repeat_heads(call.key, call.query), block=call.block)
    mask = None if call.mask is None else call.mask(call.block)
    # Either of the scores and the query may have length 1 along the batch and the heads.
    query_shape, scores_shape = ops.shape(call.query), ops.shape(scores)
    batch = scores_shape[0] if scores.shape[0] != 1 else query_shape[0]
    heads = scores.shape[1] if scores.shape[1] != 1 else query_shape[1]
    scores = ops.broadcast_to(scores, (batch, heads, call.block.rows.length, call.block.columns.length))
    return call.normalizer(scores, mask, block=call.block)


def repeat_heads(tensor: Any, query: Any) -> Any:
    """Repeat keys or values (B, K, S, H) for N query heads. K = 1 broadcasts and is left alone."""
    heads, kv_heads = query.shape[1], tensor.shape[1]
    return tensor if kv_heads in (1, heads) else ops.repeat(tensor, heads // kv_heads, axis=1)


def apply_weights(weights: Any, value: Any, block: Block, dropout: float = 0.0, seed: Any = None) -> Any:
    """Average values (b, k, s, V) by weights (b, n, t, s) after dropout: (b, n, t, V) in float32 or wider."""
    if dropout:
        weights = weights * dropout_mask(seed, dropout, block, weights.dtype)
    return ops.matmul(weights, ops.cast(value, accumulation_dtype(value.dtype)))


@dataclasses.dataclass(frozen=True, eq=False)
class BlockWeights:
    """The scores and weights of a block of rows. Its columns include all that the rows may attend to.

    Args:
        block: The place of the scores.
        scores: (b, n, t, s), before the mask.
        mask: Bool, broadcastable to the scores, or None.
        weights: (b, n, t, s).
    """

    block: Block
    scores: Any
    mask: Any
    weights: Any


def prepare_for_blocks(call: AttentionCall) -> AttentionCall:
    """Prepare a call for computation in blocks. The queries are scaled once, because they are fewer than the scores."""
    call = call.prepare()
    score = call.score
    if type(score) is not Dot:
        return call
    query = upcast(call.query) * score.factor(call.query.shape[-1])
    return dataclasses.replace(call, query=query, score=Dot(scale=1.0))


def compute_block_weights(call: AttentionCall, block: Block, query: Any, key: Any) -> BlockWeights:
    """Compute a block from its queries (b, n, t, H) and its keys (b, k, s, H), where k is n or 1."""
    scores = call.score(query, key, block=block)
    slices = (block.batch, block.heads, block.rows, block.columns)
    scores = ops.broadcast_to(scores, tuple(part.length for part in slices))
    mask = None if call.mask is None else call.mask(block)
    return BlockWeights(block, scores, mask, call.normalizer(scores, mask, block=block))
