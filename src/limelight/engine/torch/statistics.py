"""PyTorch: statistics of attention, accumulated over blocks of rows."""

import itertools
import math
from collections.abc import Iterator
from typing import Any

import torch

from limelight.core.block import Block, Slice
from limelight.core.precision import accumulation_dtype, upcast
from limelight.engine import backend
from limelight.engine.call import AttentionCall
from limelight.engine.dense import compute_block_weights, prepare_for_blocks
from limelight.engine.reductions import (
    MIN_GROUPED_COLUMNS,
    ReducedBlock,
    compute_logits,
    find_top_k,
    is_worth_grouping,
    reduce_weights,
    split_groups,
)
from limelight.engine.statistics import StatisticsSpec, row_statistics, split_columns
from limelight.engine.thresholds import choose_block_sizes
from limelight.engine.torch import blockwise
from limelight.normalizers import MASK_VALUE, Softmax, internal_softmax
from limelight.scores import Dot

# Products and the operations on rows take so many times as many scores at a time as a block has elsewhere.
SCORES_PER_PRODUCT = 8
# Halving a group halves the candidates for the largest weights, which are slow to sort.
GROUP_SIZE = 8


@torch.no_grad()
def attention_statistics(
    call: AttentionCall, value: Any = None, *, scores_per_block: int, top_k: int, num_blocks: int, align: str | None
) -> dict[str, Any]:
    """Compute the statistics of a call by name, all but the edges, in blocks of about so many scores."""
    call, spec = prepare_for_blocks(call), StatisticsSpec.from_call(call, top_k, num_blocks, align)
    loop = StatisticsLoop(call, value, spec, scores_per_strip=scores_per_block // 2)
    larger = 1 if loop.on_accelerator else SCORES_PER_PRODUCT
    for block in blockwise.iterate_blocks(call, choose_block_sizes(call, larger * scores_per_block)):
        loop.step(block)
    return loop.fields


class Buffers:
    """Memory that all blocks share: allocating memory takes longer than filling it."""

    def __init__(self) -> None:
        self._buffers: dict[str, Any] = {}

    def get(self, name: str, shape: Any, like: Any) -> Any:
        """Return memory of a shape; its content is that of the last use under this name."""
        size = math.prod(shape)
        if name not in self._buffers or self._buffers[name].numel() < size:
            self._buffers[name] = torch.empty(size, dtype=like.dtype, device=like.device)
        return self._buffers[name][:size].view(shape)


class ColumnTotals:
    """Sums and maxima of the columns of a block, for each coarse block of rows that it overlaps.

    Args:
        block: The block.
        spec: What the statistics contain.
        like: A tensor of the dtype and on the device of the weights.
    """

    def __init__(self, block: Block, spec: StatisticsSpec, like: Any) -> None:
        self.spec, self.edges = spec, spec.edges[0].tolist()
        self.coarse_rows = self._overlap(block.rows.start, block.rows.start + block.rows.length)
        count = self.coarse_rows.stop - self.coarse_rows.start
        shape = (block.batch.length, block.heads.length, count, block.columns.length)
        self.sums, self.maxima = like.new_zeros((2, *shape)).unbind()

    def add(self, start: int, weights: Any) -> None:
        """Add the weights (b, n, t, s) of the rows from `start` on."""
        stop = start + weights.shape[2]
        overlap = self._overlap(start, stop)
        edges = [start, *self.edges[overlap.start + 1 : overlap.stop], stop]
        sizes = [end - begin for begin, end in itertools.pairwise(edges)]
        if len(set(sizes)) == 1:
            parts = weights.unflatten(2, (len(sizes), -1))
            sums, maxima = parts.sum(3), parts.amax(3)
        else:
            parts = weights.split(sizes, 2)
            sums, maxima = (torch.stack([reduce(part, 2) for part in parts], 2) for reduce in (torch.sum, torch.amax))
        first = self.coarse_rows.start
        coarse_rows = slice(overlap.start - first, overlap.stop - first)
        self.sums[:, :, coarse_rows].add_(sums)
        torch.maximum(self.maxima[:, :, coarse_rows], maxima, out=self.maxima[:, :, coarse_rows])

    def _overlap(self, start: int, stop: int) -> slice:
        """Return the coarse blocks that overlap the rows from `start` to `stop`."""
        return slice(self.spec.row_block(start), self.spec.row_block(stop - 1) + 1)


class Distances:
    """Distances of the queries of a block from its keys.

    If positions count up, most keys lie on one side of all queries of a strip. There a distance is a difference, and the sum of
    weighted differences is a product with one number per key. Only the keys between are compared with each query.

    Args:
        queries, keys: Their positions, (..., t, 1) and (..., 1, s).
        is_split: Sum the two sides by products if positions count up.
    """

    def __init__(self, queries: Any, keys: Any, *, is_split: bool) -> None:
        self.queries, self.keys, self.factors = queries, keys, None
        # Positions count up unless they were given, with axes for examples and heads.
        if is_split and queries.ndim == keys.ndim == 2:
            self.factors = keys.new_ones((2, keys.shape[-1]))
            self.first_column = int(queries[0, 0] - keys[0, 0])

    def average(self, weights: Any, rows: slice, out: Any) -> Any:
        """Return the sum of each row of weights (b, n, t, s) times its distances, (b, n, t, 1).

        Args:
            weights: The weights of some rows.
            rows: Those rows of the block.
            out: Memory of the size of the weights that may be overwritten.
        """
        queries, keys = self.queries[..., rows, :], self.keys
        if self.factors is not None:
            columns = keys.shape[-1]
            begin, end = (min(max(self.first_column + row, 0), columns) for row in (rows.start, rows.stop))
            if 2 * (end - begin) <= columns:
                middle = queries[len(queries) // 2]
                torch.sub(keys[0], middle, out=self.factors[0])
                flat = weights.flatten(0, 2).T
                sides = torch.mm(self.factors[:, end:], flat[end:]) - torch.mm(self.factors[:, :begin], flat[:begin])
                sums, shares = sides.view(2, *weights.shape[:-1], 1)
                near = (queries - keys[:, begin:end]).abs_() * weights[..., begin:end]
                return sums - (queries - middle) * shares + near.sum(-1, keepdim=True)
        distances = torch.sub(queries.expand(*weights.shape[:-1], 1), keys, out=out)
        return distances.abs_().mul_(weights).sum(-1, keepdim=True)


class StatisticsLoop:
    """The loop over blocks, and the statistics so far.

    Args:
        call: The prepared call.
        value: (B, K, S, V), or None.
        spec: What the statistics contain.
        scores_per_strip: The number of scores to reduce at a time, about.
    """

    def __init__(self, call: AttentionCall, value: Any, spec: StatisticsSpec, *, scores_per_strip: int) -> None:
        self.call, self.value, self.spec, self.scores_per_strip = call, value, spec, scores_per_strip
        self.buffers = Buffers()
        self.on_accelerator = backend.active().on_accelerator(call.query)
        b, n, t, _ = call.query.shape
        dtype, device = getattr(torch, accumulation_dtype(call.query.dtype)), call.query.device
        logsumexp_of_empty = -math.inf if call.normalizer.exponential else math.nan
        coarse_shape = (b, n, spec.num_row_blocks, spec.num_column_blocks)
        # Rows that may attend to nothing are in no block: they keep these values.
        self.fields = {
            **{name: torch.zeros((b, n, t), dtype=dtype, device=device) for name in ("entropy", "distance", "mass")},
            "logsumexp": torch.full((b, n, t), logsumexp_of_empty, dtype=dtype, device=device),
            "top_keys": torch.full((b, n, t, spec.top_k), -1, dtype=torch.int32, device=device),
            "top_weights": torch.zeros((b, n, t, spec.top_k), dtype=dtype, device=device),
            "received": torch.zeros((b, n, spec.columns), dtype=dtype, device=device),
            **{name: torch.zeros(coarse_shape, dtype=dtype, device=device) for name in ("block_sums", "block_max")},
        }
        if value is not None:
            self.fields["output"] = value.new_zeros((b, n, t, value.shape[-1]))

    def step(self, block: Block) -> None:
        """Add a block to the statistics."""
        key, value = self.call.key, self.value
        query, key, value = blockwise.slice_block(block, self.call.query, key, key if value is None else value)
        if 1 < key.shape[1] < query.shape[1]:
            key, value = (tensor.repeat_interleave(query.shape[1] // tensor.shape[1], 1) for tensor in (key, value))
        if self.call.normalizer.exponential:
            reduced, distances, columns = self._reduce_softmax(block, query, key)
        else:
            weights = compute_block_weights(self.call, block, query, key)
            reduced, distances, columns = reduce_weights(weights, self.spec.top_k), None, None
        value = None if self.value is None else value
        for name, tensor in row_statistics(reduced, value, self.spec, distances).items():
            slices = (slice(part.start, part.start + part.length) for part in (block.batch, block.heads, block.rows))
            self.fields[name][tuple(slices)].copy_(tensor)
        if columns is None:
            columns = ColumnTotals(block, self.spec, reduced.unnormalized)
            for rows in self._strips(reduced.unnormalized):
                weights = reduced.unnormalized[:, :, rows]
                scaled = weights if reduced.scale is None else weights * reduced.scale[:, :, rows]
                columns.add(block.rows.start + rows.start, scaled)
        self._add_columns(block, columns)

    def _reduce_softmax(self, block: Block, query: Any, key: Any) -> tuple[ReducedBlock, Any, ColumnTotals | None]:
        """Reduce a block of softmax: its rows, their average distances (b, n, t, 1), and its columns if they need no scale.

        Whatever goes over all weights is done for one strip of rows after another, so that it finds them in the cache.
        """
        logits = self._compute_logits(block, query, key)
        is_empty = self._mask_logits(block, logits)
        queries, keys = self.spec.positions(block, logits.dtype)
        distances = Distances(
            queries.expand(*queries.shape[:-2], logits.shape[2], 1),
            keys,
            is_split=logits.shape[-1] >= MIN_GROUPED_COLUMNS and not self.on_accelerator,
        )
        max_logits, mean_logits, mean_distances = logits.new_empty((3, *logits.shape[:3], 1)).unbind()
        group_maxima = None
        if is_worth_grouping(logits.shape[-1], self.spec.top_k, GROUP_SIZE):
            shape = (*logits.shape[:3], logits.shape[-1] // GROUP_SIZE)
            group_maxima = self.buffers.get("group_maxima", shape, logits)
        columns = ColumnTotals(block, self.spec, logits)
        for rows in self._strips(logits):
            strip = logits[:, :, rows]
            weights = self.buffers.get("weights", strip.shape, strip)
            with internal_softmax():
                torch.softmax(strip, -1, out=weights)
            torch.amax(strip, -1, keepdim=True, out=max_logits[:, :, rows])
            torch.sum(strip.mul_(weights), -1, keepdim=True, out=mean_logits[:, :, rows])
            mean_distances[:, :, rows] = distances.average(weights, rows, out=strip)
            if group_maxima is not None:
                torch.amax(split_groups(weights, GROUP_SIZE), -2, out=group_maxima[:, :, rows])
            columns.add(block.rows.start + rows.start, weights)
            # The weights take the place of the logits, which keeps more of them in the cache than memory of their own.
            strip.copy_(weights)
        weights = logits
        top = find_top_k(weights, self.spec.top_k, GROUP_SIZE, group_maxima)
        reduced = ReducedBlock.from_softmax(
            self.call, block, weights, top, max_logits=max_logits, mean_logits=mean_logits, is_empty=is_empty
        )
        return reduced, mean_distances, columns if reduced.scale is None else None

    def _strips(self, weights: Any) -> Iterator[slice]:
        """Yield runs of rows of a block that fit a cache; all rows on an accelerator."""
        batch, heads, rows, columns = weights.shape
        size = rows if self.on_accelerator else max(1, self.scores_per_strip // (batch * heads * columns))
        for start in range(0, rows, size):
            yield slice(start, min(start + size, rows))

    def _compute_logits(self, block: Block, query: Any, key: Any) -> Any:
        """Compute the logits (b, n, t, s) before the mask, in memory that may be overwritten."""
        call = self.call
        if not (call.score == Dot(scale=1.0) and call.normalizer == Softmax()):
            return compute_logits(call, block, query, key).contiguous()
        logits = self.buffers.get("logits", (*query.shape[:3], key.shape[2]), query)
        key = upcast(key).expand(*query.shape[:2], -1, -1).flatten(0, 1)
        torch.bmm(query.flatten(0, 1), key.transpose(1, 2), out=logits.flatten(0, 1))
        return logits

    def _mask_logits(self, block: Block, logits: Any) -> Any:
        """Set logits to `MASK_VALUE` where the mask forbids, and return which rows are empty, (b, n, t, 1), or None.

        The mask is evaluated only for those columns that it does not permit to all rows.
        """
        mask, columns = self.call.mask, block.columns
        if mask is None:
            return None
        begin, end = (int(bound) - columns.start for bound in mask.kv_full_range(block))
        begin = min(max(begin, 0), columns.length)
        end = min(max(end, begin), columns.length)
        has_any = torch.full((), begin < end, device=logits.device)
        for first, last in ((0, begin), (end, columns.length)):
            if first < last:
                part = Slice(columns.total, columns.start + first, last - first)
                permitted = mask(block.replace(columns=part))
                logits[..., first:last].masked_fill_(~permitted, MASK_VALUE)
                has_any = has_any | permitted.any(-1, keepdim=True)
        return None if bool(has_any.all()) else ~has_any

    def _add_columns(self, block: Block, columns: ColumnTotals) -> None:
        """Add a block to the statistics of keys and coarse blocks."""
        received, block_sums, block_max = (
            block.heads.take(block.batch.take(self.fields[name], 0), 1)
            for name in ("received", "block_sums", "block_max")
        )
        block.columns.take(received, 2).add_(columns.sums.sum(2))
        block_sums[:, :, columns.coarse_rows].add_(split_columns(columns.sums, block, self.spec).sum(-1))
        block_max = block_max[:, :, columns.coarse_rows]
        torch.maximum(block_max, split_columns(columns.maxima, block, self.spec).amax(-1), out=block_max)
