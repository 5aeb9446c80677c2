"""What one attention asks: queries, keys and the parts that turn them into weights."""

import dataclasses
from typing import Any

import keras
from keras import ops

from limelight import masks, normalizers, scores
from limelight.core.block import Block
from limelight.core.component import is_tensor, shape_of
from limelight.masks import Mask
from limelight.normalizers import Normalizer
from limelight.scores import Score

# Dtypes of floats that were met: their names take longer to look at than a small attention can spare.
_floats: set[Any] = set()


@dataclasses.dataclass(frozen=True, eq=False)
class AttentionCall:
    """Everything that determines the weights of one attention. Paths compute from it; observers keep it.

    Args:
        query: (B, N, T, H).
        key: (B, K, S, H), where K divides N: each key head serves N / K query heads.
        score, mask, normalizer: the parts.
        tile: where this lies; the whole, unless rows or heads were chosen.
        lead: the axes that stood before (T, H) in what was given: () or (B,) or (B, N) or more.
        owner: the layer that asks, where one does.
    """

    query: Any
    key: Any
    score: Score
    mask: Mask | None
    normalizer: Normalizer
    block: Block
    lead: tuple = ()
    owner: Any = None

    def prepared(self) -> "AttentionCall":
        """The same question with what concerns queries and keys one by one done already."""
        query, key, score = self.score.prepare(self.query, self.key, block=self.block)
        if query is self.query and key is self.key and score is self.score:
            return self
        return dataclasses.replace(self, query=query, key=key, score=score)

    def unfold(self, tensor: Any) -> Any:
        """A result (B, N, ...) with the leading axes that the caller gave."""
        if len(self.lead) == 2:
            return tensor
        return ops.reshape(tensor, (*self.lead, *shape_of(tensor)[2:]))

    @property
    def empty(self) -> bool:
        """Whether there is nothing to be computed, as far as that is known: no example, no query or no key."""
        shape = self.query.shape
        return 0 in (shape[0], shape[1], shape[2], self.key.shape[2])

    def values(self, value: Any) -> Any:
        """Values (B, K, S, V) as numbers to be averaged, with zeros where padding stands."""
        value = floating(value)
        return value if self.mask is None else cleared(value, self.mask, self.block)


def make_call(
    query: Any,
    key: Any,
    value: Any = None,
    *,
    score: Any = None,
    mask: Any = None,
    normalizer: Any = None,
    query_positions: Any = None,
    key_positions: Any = None,
    owner: Any = None,
) -> AttentionCall:
    """Check the arguments of an attention and put them in one form.

    Args and Raises: as `limelight.attend`; a value is a tensor, and only checked.
    """
    query, key = (floating(one if ops.is_tensor(one) else ops.convert_to_tensor(one)) for one in (query, key))
    if mask is not None and (isinstance(mask, (list, tuple)) or is_tensor(mask)):
        mask = explicit(mask, shape_of(query))
    score, mask, normalizer = scores.get(score), masks.get(mask), normalizers.get(normalizer)
    check_shapes(query, key, value)
    lead = shape_of(query)[:-2]
    if len(lead) == 1 and query.shape[0] == 1:
        # One sequence of queries may serve several examples.
        lead = shape_of(key)[:1]
    query, key = fold(query), fold(key)
    batch, _, rows, _ = shape_of(query)
    block = Block.full(
        batch,
        query.shape[1],
        rows,
        shape_of(key)[2],
        given_query_positions=None if query_positions is None else counted(query_positions, "query_positions"),
        given_key_positions=None if key_positions is None else counted(key_positions, "key_positions"),
        kv_lengths=None if mask is None else mask.kv_lengths,
    )
    key = key if mask is None else cleared(key, mask, block)
    # Here, where whole shapes are known, and not in the first block.
    scores.build(score, tuple(query.shape), tuple(key.shape))
    shape = (block.batch.total, block.heads.total, block.rows.total, block.columns.total)
    normalizers.build(normalizer, shape)
    return AttentionCall(query, key, score, mask, normalizer.sample_seed(), block, lead, owner)


def fold(tensor: Any) -> Any:
    """(..., N, T, H) as (B, N, T, H): leading axes merged, missing ones added."""
    if len(tensor.shape) == 4:
        return tensor
    shape = shape_of(tensor)
    if len(shape) == 3:
        return ops.expand_dims(tensor, 1)
    if len(shape) == 2:
        return ops.reshape(tensor, (1, 1, *shape))
    return ops.reshape(tensor, (-1, *shape[-3:]))


def floating(tensor: Any) -> Any:
    """A tensor of floats; integers and bools become Keras's `floatx`."""
    if tensor.dtype in _floats:
        return tensor
    if "float" not in str(tensor.dtype):
        return ops.cast(tensor, keras.config.floatx())
    _floats.add(tensor.dtype)
    return tensor


def cleared(tensor: Any, mask: Mask, block: Block) -> Any:
    """Keys or values (B, K, S, H) with zeros where padding stands: what is there, NaN among it, must not be seen."""
    for real in mask.padding_masks():
        tensor = ops.where(ops.swapaxes(block.align(real, "bs"), -1, -2), tensor, ops.zeros((), dtype=tensor.dtype))
    return tensor


def counted(positions: Any, name: str) -> Any:
    """Positions, which must be integers."""
    positions = positions if is_tensor(positions) else ops.convert_to_tensor(positions)
    if "int" not in str(positions.dtype) or not 1 <= len(positions.shape) <= 2:
        raise ValueError(
            f"`{name}` must be integers (T,) or (B, T), of each position. Received: {positions.dtype} of shape "
            f"{tuple(positions.shape)}. Times and the like go into the queries and keys, for example for limelight.scores.NegativeSquaredDistance()."
        )
    return positions


def explicit(array: Any, queries: tuple) -> Mask:
    """A mask given as an array that broadcasts to (..., T, S) by numpy's rules, for queries (..., T, H) of the given shape."""
    array, rank = masks.boolean(array, "`mask`"), len(queries)
    if len(array.shape) > rank:
        raise ValueError(
            f"`mask` must broadcast to the weights (..., T, S), which have {rank} axes here. Received: a mask of shape "
            f"{tuple(array.shape)}. Remove its leading axes."
        )
    if rank == 3 and len(array.shape) == 3:
        array = ops.expand_dims(array, 1)
    elif rank > 4 and len(array.shape) > 3:
        last = shape_of(array)[-3:]
        if None not in queries[:-3]:
            array = ops.broadcast_to(array, (*queries[:-3], *last))
        array = ops.reshape(array, (-1, *last))
    elif len(array.shape) < 2:
        array = ops.reshape(array, (1, -1))
    return masks.ArrayMask(array)


def check_leading(rows: tuple, columns: tuple, values: tuple) -> None:
    """Raise where axes before the lengths differ, other than by the number of heads or by one sequence for all examples."""
    if len(columns) != len(values) or any(map(unequal, columns[:-2], values[:-2])):
        raise ValueError(
            "`key` and `value` must have the same leading axes, (..., S, H) and (..., S, V). Received: key "
            f"{columns}, value {values}."
        )
    heads = 1 if len(rows) > 3 else 0
    examples, others = rows[: -2 - heads], columns[: -2 - heads]
    alone = len(examples) == 1 and (examples == (1,) or others == (1,))
    if not alone and any(map(unequal, examples, others)):
        raise ValueError(
            "`query` and `key` must be of the same examples, (..., N, T, H) and (..., K, S, H). Received: query "
            f"{rows}, key {columns}. A single axis of examples may have length 1 in one of them."
        )


def unequal(length: Any, other: Any) -> bool:
    """Whether two lengths are known to differ."""
    return isinstance(length, int) and isinstance(other, int) and length != other


def check_shapes(query: Any, key: Any, value: Any = None) -> None:
    """Raise where queries, keys and values cannot belong together."""
    rows, columns = tuple(query.shape), tuple(key.shape)
    values = columns if value is None else tuple(value.shape)
    if len(rows) > 1 and rows == columns == values:
        return
    for name, shape in (("query", rows), ("key", columns), ("value", values)):
        if len(shape) < 2:
            raise ValueError(
                f"`{name}` must have shape (..., length, size). Received: shape {shape}. Add a length axis: {name}[None]."
            )
    if len(rows) != len(columns):
        raise ValueError(
            "`query` and `key` must have the same number of axes, (..., T, H) and (..., S, H). Received: query "
            f"{rows}, key {columns}."
        )
    if not rows[:-2] == columns[:-2] == values[:-2]:
        check_leading(rows, columns, values)
    if len(rows) > 3 and columns[-3] and rows[-3] % columns[-3]:
        raise ValueError(
            "The number of key heads must divide the number of query heads, (..., N, T, H) and (..., K, S, H). Received: "
            f"N={rows[-3]}, K={columns[-3]}."
        )
    if columns[-2] is not None and values[-2] is not None and columns[-2] != values[-2]:
        raise ValueError(
            "`key` and `value` must have the same length S, (..., S, H) and (..., S, V). Received: key "
            f"{columns}, value {values}."
        )
