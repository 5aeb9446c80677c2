"""Sources of several batches as one source: shorter batches are zero-padded, and the padding is masked."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from limelight.maps.sources import QKSource, Source, StatisticsSource, WeightSource
from limelight.maps.stored_mask import StoredMask


def concat_sources(sources: list[Source]) -> Source:
    """Concatenate the sources of one layer along the batch.

    Raises:
        ValueError: the sources differ in more than their tensors, or statistics are of different lengths.
    """
    if any(isinstance(source, StatisticsSource) for source in sources):
        return _concat_statistics(sources)
    shape = tuple(max(lengths) for lengths in zip(*(source.shape for source in sources), strict=True))
    if any(_fixed_fields(source) != _fixed_fields(sources[0]) for source in sources):
        raise ValueError(
            "Batches must come from the same layers to be concatenated. Received: sources that differ in their kind, scale, "
            "soft cap, bias or window."
        )
    mask = _concat_masks(sources, shape)
    captured = [source for source in sources if isinstance(source, WeightSource)]
    if captured:
        return WeightSource(_concat([source.array for source in captured], shape), mask)
    projected = [source for source in sources if isinstance(source, QKSource)]
    num_key_heads, _, size = projected[0].key.shape[-3:]
    return dataclasses.replace(
        projected[0],
        query=_concat([source.query for source in projected], (*shape[:-1], size)),
        key=_concat([source.key for source in projected], (*shape[:-3], num_key_heads, shape[-1], size)),
        bias=_concat_broadcast([source.bias for source in projected], projected, shape),
        mask=mask,
    )


def _concat_statistics(sources: list[Source]) -> StatisticsSource:
    statistics = [source for source in sources if isinstance(source, StatisticsSource)]
    shapes = {source.shape[1:] for source in sources}
    if len(statistics) < len(sources) or len(shapes) > 1:
        raise ValueError(
            f"Batches must have one length for their statistics to be concatenated. Received: {sorted(shapes)}. Process one "
            "batch at a time, with predict_on_batch, or pad all to one length."
        )
    shared = ("row_edges", "column_edges", "mask")
    names = [field.name for field in dataclasses.fields(StatisticsSource) if field.name not in shared]
    arrays = {name: np.concatenate([getattr(source, name) for source in statistics]) for name in names}
    return dataclasses.replace(statistics[0], **arrays)


def _fixed_fields(source: Any) -> tuple:
    """Return what must be equal in every batch."""
    window = (source.mask.left, source.mask.right)
    if isinstance(source, WeightSource):
        return (WeightSource, *window)
    vector = None if source.vector is None else source.vector.tobytes()
    return (QKSource, *window, source.scale, vector, source.softcap, source.bias is None)


def _concat_masks(sources: list[Source], shape: tuple[int, ...]) -> StoredMask:
    first = sources[0].mask
    keys = _concat_padding_masks([source.mask.keys for source in sources], sources, -1, shape)
    queries = _concat_padding_masks([source.mask.queries for source in sources], sources, -2, shape)
    if len({source.mask.offset for source in sources}) > 1 and (first.left is not None or first.right is not None):
        # Windows at different offsets have no common form but an array.
        return StoredMask(keys, queries, _concat_broadcast([_dense_mask(source) for source in sources], sources, shape))
    arrays = [source.mask.array for source in sources]
    if any(array is not None for array in arrays):
        arrays = [np.ones((1,) * len(shape), bool) if array is None else array for array in arrays]
    array = _concat_broadcast(arrays, sources, shape)
    return StoredMask(keys, queries, array, first.left, first.right, first.offset)


def _dense_mask(source: Source) -> np.ndarray:
    """Return the mask of one batch, without its padding, as an array (B, ..., N, T, S)."""
    mask = dataclasses.replace(source.mask, keys=None, queries=None)
    *lead, heads, rows, columns = source.shape
    result = np.ones(source.shape, bool)
    for example in np.ndindex(*lead):
        part = mask.for_rows(example, np.arange(heads), np.arange(rows), columns)
        result[example] = True if part is None else part
    return result


def _concat_padding_masks(
    masks: list[np.ndarray | None], sources: list[Source], axis: int, shape: tuple[int, ...]
) -> np.ndarray | None:
    """Concatenate padding masks along one axis of the weights; all positions of a batch without one are real."""
    full_shapes = [(*source.shape[:-3], source.shape[axis]) for source in sources]
    if all(mask is None for mask in masks) and len({full_shape[1:] for full_shape in full_shapes}) == 1:
        return None
    full = [
        np.broadcast_to(np.True_ if mask is None else mask, full_shape)
        for mask, full_shape in zip(masks, full_shapes, strict=True)
    ]
    return _concat(full, (*shape[:-3], shape[axis]))


def _concat_broadcast(
    arrays: Sequence[np.ndarray | None], sources: Sequence[Source], shape: tuple[int, ...]
) -> np.ndarray | None:
    """Concatenate arrays that broadcast to the weights; axes that have length 1 in every batch keep it."""
    present = [array for array in arrays if array is not None]
    if not present:
        return None
    first = present[0]
    equal = all(len(array) == 1 and np.array_equal(array, first) for array in present)
    if equal and len({source.shape[1:] for source in sources}) == 1:
        return first
    is_full = [axis == 0 or any(array.shape[axis] > 1 for array in present) for axis in range(len(shape))]
    full = [
        np.broadcast_to(array, np.where(is_full, source.shape, 1))
        for array, source in zip(present, sources, strict=True)
    ]
    return _concat(full, np.where(is_full, shape, 1))


def _concat(arrays: list[np.ndarray], shape: Sequence[int] | np.ndarray) -> np.ndarray:
    """Concatenate along the batch arrays that are zero-padded at the end of all other axes, to the lengths in a shape."""
    padded = []
    for array in arrays:
        widths = [(0, 0), *((0, int(after - before)) for before, after in zip(array.shape[1:], shape[1:], strict=True))]
        padded.append(np.pad(array, widths) if any(after for _, after in widths) else array)
    return np.concatenate(padded)
