"""Several batches as one, and tokens to the axes that they belong to."""

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from limelight.maps._attention_map import AttentionMap, per_example
from limelight.maps.sources import QKSource, Source, StatisticsSource, WeightSource
from limelight.maps.stored_mask import StoredMask

if TYPE_CHECKING:
    from limelight.maps._attention_maps import AttentionMaps


def joined(parts: "Sequence[AttentionMaps]") -> list[AttentionMap]:
    """The maps of each layer over all batches."""
    if not parts:
        return []
    for part in parts:
        if list(part) != list(parts[0]):
            raise ValueError(
                f"Batches must have the same maps to be joined. Received: {list(parts[0])} and {list(part)}."
            )
    return [_join([part[key] for part in parts]) for key in parts[0]]


def labelled(seen: AttentionMap, tokens: Any, length: int | None) -> AttentionMap:
    """A map with tokens on the axes of that length, or as long as the longest list of tokens."""
    tokens = per_example(tokens) or ()
    length = max((len(one) for one in tokens), default=0) if length is None else length
    keys = tokens if length == seen.shape[-1] else seen.tokens
    queries = tokens if length == seen.shape[-2] else seen.query_tokens
    return dataclasses.replace(seen, tokens=keys, query_tokens=queries)


def _join(maps: list[AttentionMap]) -> AttentionMap:
    if len(maps) == 1:
        return maps[0]
    tokens = [one.tokens for one in maps]
    query_tokens = [one.query_tokens for one in maps]
    return dataclasses.replace(
        maps[0],
        source=_join_sources([one.source for one in maps]),
        tokens=None if None in tokens else tuple(text for one in tokens for text in one or ()),
        query_tokens=None if None in query_tokens else tuple(text for one in query_tokens for text in one or ()),
    )


def _join_sources(sources: list[Source]) -> Source:
    surveyed = [one for one in sources if isinstance(one, StatisticsSource)]
    if surveyed:
        return _join_surveys(surveyed, sources)
    shape = tuple(max(sizes) for sizes in zip(*(one.shape for one in sources), strict=True))
    rows, columns = shape[-2:]
    if len({type(one) for one in sources}) > 1 or any(_plain(one) != _plain(sources[0]) for one in sources):
        raise ValueError(
            "Batches must come from the same layers to be joined. Received: maps that were asked differently."
        )
    allowed = _join_allowed(sources, shape)
    kept = [one for one in sources if isinstance(one, WeightSource)]
    if kept:
        arrays = [_padded(one.array, {-2: rows, -1: columns}) for one in kept]
        return WeightSource(_concatenated(arrays, shape), allowed)
    asked = [one for one in sources if isinstance(one, QKSource)]
    return dataclasses.replace(
        asked[0],
        query=_concatenated([_padded(one.query, {-2: rows}) for one in asked], shape),
        key=_concatenated([_padded(one.key, {-2: columns}) for one in asked], shape),
        bias=_stack_parts([one.bias for one in asked], asked, shape, {-2: rows, -1: columns}),
        allowed=allowed,
    )


def _join_surveys(surveyed: list[StatisticsSource], sources: list[Source]) -> StatisticsSource:
    shapes = {one.shape[1:] for one in sources}
    if len(surveyed) < len(sources) or len(shapes) > 1:
        raise ValueError(
            f"Batches must have one length for their surveys to be joined. Received: {sorted(shapes)}. Take one batch at a "
            "time, with predict_on_batch, or pad all to one length."
        )
    edges = ("row_edges", "column_edges")
    names = [field.name for field in dataclasses.fields(StatisticsSource) if field.name not in (*edges, "allowed")]
    return dataclasses.replace(
        surveyed[0], **{name: np.concatenate([getattr(one, name) for one in surveyed]) for name in names}
    )


def _plain(source: Any) -> tuple:
    """What must be the same in every batch."""
    if isinstance(source, WeightSource):
        return (source.allowed.left, source.allowed.right)
    vector = None if source.vector is None else source.vector.tobytes()
    return (source.scale, vector, source.softcap, source.allowed.left, source.allowed.right, source.bias is None)


def _join_allowed(sources: list[Source], shape: tuple[int, ...]) -> StoredMask:
    """Permissions of all batches; the padding that joining adds is forbidden."""
    first = sources[0].allowed
    rows, columns = shape[-2:]
    keys = _lengthened([one.allowed.keys for one in sources], sources, -1, columns, shape)
    queries = _lengthened([one.allowed.queries for one in sources], sources, -2, rows, shape)
    if len({one.allowed.shift for one in sources}) > 1 and (first.left is not None or first.right is not None):
        return StoredMask(
            keys, queries, _stack_parts([_dense(one) for one in sources], sources, shape, {-2: rows, -1: columns})
        )
    arrays = [one.allowed.array for one in sources]
    if any(array is not None for array in arrays):
        arrays = [np.ones((1,) * len(shape), bool) if array is None else array for array in arrays]
    array = _stack_parts(arrays, sources, shape, {-2: rows, -1: columns})
    return StoredMask(keys, queries, array, first.left, first.right, first.shift)


def _dense(source: Source) -> np.ndarray:
    """The permissions of one batch without those of its padding, as an array (B, ..., N|1, T, S)."""
    allowed = dataclasses.replace(source.allowed, keys=None, queries=None)
    lead, (heads, rows, columns) = source.shape[:-3], source.shape[-3:]
    blocks = [allowed.block(example, np.arange(heads), np.arange(rows), columns) for example in np.ndindex(*lead)]
    whole = [np.broadcast_to(block, (heads, rows, columns)) for block in blocks if block is not None]
    return np.stack(whole).reshape(*lead, heads, rows, columns)


def _lengthened(
    parts: list[np.ndarray | None], sources: list[Source], axis: int, length: int, shape: tuple[int, ...]
) -> np.ndarray | None:
    """Padding masks of all batches at one length; a batch without one is all real where it has positions."""
    if all(part is None for part in parts) and all(one.shape[axis] == length for one in sources):
        return None
    filled = []
    for part, one in zip(parts, sources, strict=True):
        whole = np.ones((1,) * (len(one.shape) - 3) + (one.shape[axis],), bool) if part is None else part
        whole = np.broadcast_to(whole, (*one.shape[:-3], one.shape[axis]))
        filled.append(_padded(whole, {-1: length}))
    return _concatenated(filled, shape)


def _stack_parts(
    parts: Sequence[np.ndarray | None], sources: Sequence[Source], shape: tuple[int, ...], lengths: dict[int, int]
) -> np.ndarray | None:
    """Arrays that broadcast to the weights, of all batches; axes of length 1 stay so where they do in every batch."""
    given = [part for part in parts if part is not None]
    if not given:
        return None
    same = all(part.shape[0] == 1 and part.shape == given[0].shape and (part == given[0]).all() for part in given)
    if same and all(one.shape[-2:] == sources[0].shape[-2:] for one in sources):
        return given[0]
    axes = [axis for axis in range(1, len(shape)) if any(part.shape[axis] > 1 for part in given)]
    filled = []
    for part, one in zip(given, sources, strict=True):
        wanted = [one.shape[axis] if axis in (0, *axes) else 1 for axis in range(len(shape))]
        whole = np.broadcast_to(part, wanted)
        filled.append(_padded(whole, {axis: size for axis, size in lengths.items() if axis % len(shape) in axes}))
    return _concatenated(filled, shape)


def _padded(array: np.ndarray, lengths: dict[int, int]) -> np.ndarray:
    """An array with zeros behind, up to the given lengths of some axes."""
    widths = [(0, 0)] * array.ndim
    for axis, length in lengths.items():
        widths[axis] = (0, length - array.shape[axis])
    return np.pad(array, widths) if any(after for _, after in widths) else array


def _concatenated(arrays: list[np.ndarray], shape: tuple[int, ...]) -> np.ndarray:
    """Batches one after the other; axes of steps between B and the last three at their longest."""
    steps = {axis: shape[axis] for axis in range(1, len(shape) - 3)}
    return np.concatenate([_padded(array, {a: n for a, n in steps.items() if array.shape[a] > 1}) for array in arrays])
