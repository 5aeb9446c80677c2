"""One block of whole rows, by the formula, on any backend."""

import dataclasses
from typing import Any

from keras import ops

from limelight.core.block import Block
from limelight.core.precision import accumulation_dtype, upcast
from limelight.core.random import dropout_mask
from limelight.engine.call import AttentionCall
from limelight.scores import Dot


@dataclasses.dataclass(frozen=True, eq=False)
class BlockWeights:
    """Scores and weights of a block of rows, over a run of columns that holds all that the rows may attend to.

    Args:
        tile: where it lies.
        scores: (b, n, t, s), before the mask.
        permitted: the mask, broadcastable to the scores, or None.
        weights: (b, n, t, s).
    """

    block: Block
    scores: Any
    permitted: Any
    weights: Any


def prepared(call: AttentionCall) -> AttentionCall:
    """A question prepared for blocks. What a dot product is multiplied by, its queries are: they are fewer than the scores."""
    call = call.prepared()
    score = call.score
    if type(score) is not Dot:
        return call
    query = upcast(call.query) * score.factor(call.query.shape[-1])
    return dataclasses.replace(call, query=query, score=Dot(scale=1.0))


def block_weights(call: AttentionCall, block: Block, query: Any, key: Any) -> BlockWeights:
    """The block at a tile, from its queries (b, n, t, H) and its keys (b, k, s, H), where k is n or 1."""
    scores = call.score(query, key, block=block)
    spans = (block.batch, block.heads, block.rows, block.columns)
    scores = ops.broadcast_to(scores, tuple(span.length for span in spans))
    permitted = None if call.mask is None else call.mask(block)
    return BlockWeights(block, scores, permitted, call.normalizer(scores, permitted, block=block))


def mixture(weights: Any, value: Any, block: Block, dropout: float = 0.0, seed: Any = None) -> Any:
    """The average of values (b, k, s, V) by weights (b, n, t, s), with dropout: (b, n, t, V) in float32 or wider."""
    if dropout:
        weights = weights * dropout_mask(seed, dropout, block, weights.dtype)
    return ops.matmul(weights, ops.cast(value, accumulation_dtype(value.dtype)))
