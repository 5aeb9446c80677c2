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
    rows, columns = shape[-2:]
    if any(_fixed_fields(source) != _fixed_fields(sources[0]) for source in sources):
        raise ValueError(
            "Batches must come from the same layers to be concatenated. Received: sources that differ in their kind, scale, "
            "soft cap, bias or window."
        )
    mask = _concat_masks(sources, shape)
    captured = [source for source in sources if isinstance(source, WeightSource)]
    if captured:
        return WeightSource(_concat([_pad(source.array, {-2: rows, -1: columns}) for source in captured], shape), mask)
    projected = [source for source in sources if isinstance(source, QKSource)]
    return dataclasses.replace(
        projected[0],
        query=_concat([_pad(source.query, {-2: rows}) for source in projected], shape),
        key=_concat([_pad(source.key, {-2: columns}) for source in projected], shape),
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
    if all(mask is None for mask in masks) and all(source.shape[axis] == shape[axis] for source in sources):
        return None
    padded = []
    for mask, source in zip(masks, sources, strict=True):
        full = np.broadcast_to(np.True_ if mask is None else mask, (*source.shape[:-3], source.shape[axis]))
        padded.append(_pad(full, {-1: shape[axis]}))
    return _concat(padded, shape)


def _concat_broadcast(
    arrays: Sequence[np.ndarray | None], sources: Sequence[Source], shape: tuple[int, ...]
) -> np.ndarray | None:
    """Concatenate arrays that broadcast to the weights; axes that have length 1 in every batch keep it."""
    present = [array for array in arrays if array is not None]
    if not present:
        return None
    first = present[0]
    equal = all(len(array) == 1 and np.array_equal(array, first) for array in present)
    if equal and all(source.shape[-2:] == sources[0].shape[-2:] for source in sources):
        return first
    axes = [axis for axis in range(1, len(shape)) if any(array.shape[axis] > 1 for array in present)]
    lengths = {axis: shape[axis] for axis in axes if axis >= len(shape) - 2}
    padded = []
    for array, source in zip(present, sources, strict=True):
        full_shape = [length if axis in (0, *axes) else 1 for axis, length in enumerate(source.shape)]
        padded.append(_pad(np.broadcast_to(array, full_shape), lengths))
    return _concat(padded, shape)


def _pad(array: np.ndarray, lengths: dict[int, int]) -> np.ndarray:
    """Zero-pad an array at the end of some axes, to the lengths for them."""
    widths = [(0, 0)] * array.ndim
    for axis, length in lengths.items():
        widths[axis] = (0, length - array.shape[axis])
    return np.pad(array, widths) if any(after for _, after in widths) else array


def _concat(arrays: list[np.ndarray], shape: tuple[int, ...]) -> np.ndarray:
    """Concatenate along the batch; the axes of steps, between B and N, are padded to their longest."""
    steps = {axis: shape[axis] for axis in range(1, len(shape) - 3)}
    return np.concatenate([_pad(array, {a: n for a, n in steps.items() if array.shape[a] > 1}) for array in arrays])
