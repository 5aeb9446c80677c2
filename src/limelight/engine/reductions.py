"""A block of whole rows of weights, reduced to statistics of each row."""

import dataclasses
from typing import Any

import keras
from keras import ops

from limelight.core.block import Block
from limelight.engine.call import AttentionCall
from limelight.engine.dense import BlockWeights
from limelight.masks import static_min
from limelight.normalizers import MASK_VALUE, softmax
from limelight.scores import Dot

# The exponential of this is 0, in float64 too. A product of it and 0 is 0, which one of -inf and 0 is not.
MIN_EXPONENT = -800.0
TINY = 1e-37
# In rows of at least this many keys, the largest weights are found by way of groups of so many keys.
MIN_GROUPED_COLUMNS = 512
GROUP_SIZE = 16


@dataclasses.dataclass(frozen=True, eq=False)
class ReducedBlock:
    """The weights of a block, as `unnormalized * scale`, and the statistics of its rows.

    Whatever is summed over a row is scaled afterwards, which saves a pass over the weights.

    Args:
        block: The place of the weights.
        unnormalized: (b, n, t, s).
        scale: (b, n, t, 1), or None for 1.
        top_values, top_indices: The largest weights of each row and their columns in the block, (b, n, t, top_k).
        mass, entropy, logsumexp: The other statistics of the rows, (b, n, t).
    """

    block: Block
    unnormalized: Any
    scale: Any
    top_values: Any
    top_indices: Any
    mass: Any
    entropy: Any
    logsumexp: Any

    @classmethod
    def from_softmax(
        cls,
        call: AttentionCall,
        block: Block,
        weights: Any,
        top: tuple[Any, Any],
        *,
        max_logits: Any,
        mean_logits: Any,
        is_empty: Any,
    ) -> "ReducedBlock":
        """Derive the statistics of rows from their softmax.

        The logsumexp of a row follows from its largest weight, which is the exponential of the largest logit minus the logsumexp.

        Args:
            call: The attention call.
            block: The block.
            weights: The softmax of the logits, (b, n, t, s), without sinks.
            top: The largest weights of each row and their columns, as `find_top_k` returns them.
            max_logits: The largest logit of each row, (b, n, t, 1).
            mean_logits: The average of each row's logits by its weights, (b, n, t, 1).
            is_empty: bool (b, n, t, 1), True for rows that permit nothing; None if there is none.
        """
        top_values, top_indices = top
        logsumexp = max_logits - ops.log(top_values[..., :1])
        entropy, scale = logsumexp - mean_logits, None
        sinks = call.normalizer.sinks(block)
        if sinks is not None:
            log_total_ratio = ops.softplus(ops.cast(sinks, logsumexp.dtype) - logsumexp)
            scale = ops.exp(-log_total_ratio)
            entropy = scale * (entropy + log_total_ratio)
        if is_empty is not None:
            scale = ops.where(is_empty, 0.0, ops.ones_like(logsumexp) if scale is None else scale)
            logsumexp, entropy = ops.where(is_empty, float("-inf"), logsumexp), ops.where(is_empty, 0.0, entropy)
        mass = ops.ones_like(logsumexp) if scale is None else scale
        top_values = top_values if scale is None else top_values * scale
        return cls(block, weights, scale, top_values, top_indices, mass[..., 0], entropy[..., 0], logsumexp[..., 0])

    def rescale(self, rows: Any) -> Any:
        """Convert sums or maxima of `unnormalized`, (b, n, t, ...), to those of the weights."""
        return rows if self.scale is None else rows * self.scale


def reduce_weights(weights: BlockWeights, top_k: int) -> ReducedBlock:
    """Reduce weights of any normalizer. They have no logsumexp."""
    w = weights.weights
    entropy = -sum_rows(w * ops.log(ops.maximum(w, TINY)))[..., 0]
    logsumexp = ops.full_like(entropy, float("nan"))
    return ReducedBlock(weights.block, w, None, *find_top_k(w, top_k), sum_rows(w)[..., 0], entropy, logsumexp)


def reduce_exponentials(call: AttentionCall, weights: BlockWeights, top_k: int) -> ReducedBlock:
    """Reduce the weights of an exponential normalizer, for a backend that fuses elementwise operations."""
    normalizer = call.normalizer
    logits = normalizer.logits(weights.scores, block=weights.block)
    if weights.mask is not None:
        logits = ops.where(weights.mask, logits, float("-inf"))
    maximum = ops.max(logits, axis=-1, keepdims=True)
    is_empty = ops.logical_not(maximum > float("-inf"))
    maximum = ops.where(is_empty, 0.0, maximum)
    shifted = logits - maximum
    if weights.mask is not None or type(call.score) is not Dot:
        shifted = ops.maximum(shifted, MIN_EXPONENT)
    exponentials = ops.exp(shifted)
    total = total_with_sinks = sum_rows(exponentials)
    sinks = normalizer.sinks(weights.block)
    if sinks is not None:
        # Relative to the larger of the two, so that the exponential of a high sink cannot overflow.
        reference = ops.maximum(maximum, ops.cast(sinks, maximum.dtype))
        decay = ops.exp(maximum - reference)
        total_with_sinks = (total * decay + ops.exp(sinks - reference)) / ops.maximum(decay, TINY)
    scale = ops.where(is_empty, 0.0, 1.0 / ops.where(is_empty, 1.0, total_with_sinks))
    entropy = (ops.log(ops.maximum(total_with_sinks, TINY)) * total - sum_rows(exponentials * shifted)) * scale
    logsumexp = ops.where(is_empty, float("-inf"), maximum + ops.log(ops.maximum(total, TINY)))
    top_values, top_indices = find_top_k(exponentials, top_k)
    return ReducedBlock(
        weights.block,
        exponentials,
        scale,
        top_values * scale,
        top_indices,
        (total * scale)[..., 0],
        entropy[..., 0],
        logsumexp[..., 0],
    )


def reduce_softmax(call: AttentionCall, block: Block, logits: Any, is_empty: Any, top_k: int) -> ReducedBlock:
    """Reduce the weights of an exponential normalizer, for a backend where each operation goes through memory.

    The only array of that size which is made is the softmax.

    Args:
        call: The attention call.
        block: The block.
        logits: (b, n, t, s), `MASK_VALUE` where the mask forbids.
        is_empty: bool (b, n, t, 1), True for rows that permit nothing; None if there is none.
        top_k: The number of weights of each row.
    """
    weights = softmax(logits)
    top = find_top_k(weights, top_k)
    max_logits = gather_columns(logits, top[1][..., :1])
    mean_logits = sum_rows(weights * logits)
    return ReducedBlock.from_softmax(
        call, block, weights, top, max_logits=max_logits, mean_logits=mean_logits, is_empty=is_empty
    )


def compute_logits(call: AttentionCall, block: Block, query: Any, key: Any) -> Any:
    """Compute the logits of an exponential normalizer, (b, n, t, s), before the mask. Their product with 0 is 0."""
    logits = call.normalizer.logits(call.score(query, key, block=block), block=block)
    if type(call.score) is not Dot:
        logits = ops.maximum(logits, MASK_VALUE)
    slices = (block.batch, block.heads, block.rows, block.columns)
    return ops.broadcast_to(logits, tuple(part.length for part in slices))


def sum_rows(tensor: Any) -> Any:
    """Return the sum of each row (..., s), (..., 1)."""
    if keras.backend.backend() == "jax":
        # XLA does not vectorize a sum of what it computes on the way.
        return ops.matmul(tensor, ops.ones((ops.shape(tensor)[-1], 1), dtype=tensor.dtype))
    return ops.sum(tensor, axis=-1, keepdims=True)


def gather_columns(rows: Any, indices: Any) -> Any:
    """Return the elements (..., k) of each row (..., s) at its indices (..., k), which are not negative."""
    if keras.backend.backend() == "torch":
        # Keras would go over them several times to replace negative ones.
        return rows.gather(-1, indices.long())
    return ops.take_along_axis(rows, ops.cast(indices, "int32"), axis=-1)


def find_top_k(weights: Any, k: int, group_size: int = GROUP_SIZE, group_maxima: Any = None) -> tuple[Any, Any]:
    """Find the k largest weights of each row.

    Args:
        weights: (..., s).
        k: Their number.
        group_size: In long rows, they are found by way of the maxima of groups of so many keys.
        group_maxima: The maxima of `split_groups(weights, group_size)` over the keys of a group, if they are known.

    Returns:
        The weights (..., k), largest first, and their indices, int32. If s < k, 0 is appended.
    """
    leading, columns = tuple(ops.shape(weights))[:-1], weights.shape[-1]
    count = static_min(k, ops.shape(weights)[-1])
    if columns is not None and is_worth_grouping(columns, k, group_size):
        values, indices = find_top_k_by_groups(weights, k, group_size, group_maxima)
    else:
        values, indices = ops.top_k(weights, count)
    if columns is None or columns < k:
        padding = (*leading, k - count)
        values = ops.concatenate([values, ops.zeros(padding, values.dtype)], axis=-1)
        indices = ops.concatenate([indices, ops.zeros(padding, indices.dtype)], axis=-1)
        values, indices = (ops.reshape(tensor, (*leading, k)) for tensor in (values, indices))
    return values, ops.cast(indices, "int32")


def is_worth_grouping(columns: int, k: int, group_size: int) -> bool:
    """Return True if rows are long enough to find their k largest weights by way of groups."""
    return columns >= max(MIN_GROUPED_COLUMNS, 4 * k * group_size)


def split_groups(weights: Any, group_size: int) -> Any:
    """Return the groups of each row (..., s), (..., group_size, s // group_size). Keys at the end may be in no group.

    The keys of a group are spread over the row, because a maximum over an axis that is not the last is faster.
    """
    num_groups = weights.shape[-1] // group_size
    return ops.reshape(
        weights[..., : num_groups * group_size], (*tuple(ops.shape(weights))[:-1], group_size, num_groups)
    )


def find_top_k_by_groups(
    weights: Any, k: int, group_size: int = GROUP_SIZE, group_maxima: Any = None
) -> tuple[Any, Any]:
    """Return the same for long rows: the k largest weights lie in the k groups with the largest maxima."""
    leading, columns = tuple(ops.shape(weights))[:-1], weights.shape[-1]
    if group_maxima is None:
        group_maxima = ops.max(split_groups(weights, group_size), axis=-2)
    num_groups = columns // group_size
    _, groups = find_top_k(group_maxima, k, group_size)
    # In the order of the keys, so that the first of equals comes first.
    groups = ops.expand_dims(ops.sort(groups, axis=-1), -2)
    offsets = ops.expand_dims(ops.arange(group_size, dtype="int32") * num_groups, -1)
    candidates = ops.reshape(groups + offsets, (*leading, group_size * k))
    if columns > num_groups * group_size:
        rest = ops.arange(num_groups * group_size, columns, dtype="int32")
        rest = ops.broadcast_to(rest, (*leading, columns - num_groups * group_size))
        candidates = ops.concatenate([candidates, rest], axis=-1)
    values, order = ops.top_k(gather_columns(weights, candidates), k)
    return values, gather_columns(candidates, order)
