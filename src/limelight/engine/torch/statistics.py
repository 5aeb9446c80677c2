"""PyTorch: statistics of attention, accumulated over blocks of rows."""

import math
from collections.abc import Iterator
from typing import Any

import torch

from limelight.core.block import Block, Slice
from limelight.core.precision import accumulation_dtype, upcast
from limelight.engine import backend
from limelight.engine.call import AttentionCall
from limelight.engine.dense import apply_weights, compute_block_weights, prepare_for_blocks
from limelight.engine.reductions import (
    MIN_GROUPED_COLUMNS,
    ReducedBlock,
    ReductionOps,
    compute_logits,
    reduce_softmax,
    reduce_weights,
)
from limelight.engine.statistics import StatisticsSpec, row_statistics, split_columns
from limelight.engine.thresholds import choose_block_sizes
from limelight.engine.torch import blockwise
from limelight.normalizers import MASK_VALUE, Softmax, internal_softmax
from limelight.scores import Dot

ROWS_PER_PRODUCT = 8  # so many times as many rows are multiplied at a time as are reduced


@torch.no_grad()
def attention_statistics(
    call: AttentionCall, value: Any = None, *, scores_per_block: int, top_k: int, num_blocks: int, align: str | None
) -> dict[str, Any]:
    """Compute the statistics of a call by name, all but the edges, in blocks of about so many scores."""
    call, spec = prepare_for_blocks(call), StatisticsSpec.from_call(call, top_k, num_blocks, align)
    loop = StatisticsLoop(call, value, spec, scores_per_strip=scores_per_block // 2)
    # On a CPU a product is faster with more rows than a cache holds; what follows goes over strips of them.
    larger = 1 if loop.on_accelerator else ROWS_PER_PRODUCT
    for block in blockwise.iterate_blocks(call, choose_block_sizes(call, larger * scores_per_block)):
        loop.step(block)
    return loop.fields


class InPlaceOps(ReductionOps):
    """Reductions into memory that all blocks share: allocating memory takes longer than filling it."""

    def __init__(self) -> None:
        self._buffers: dict[str, Any] = {}
        self.weights: Any = None  # where `softmax` puts its result

    def buffer(self, name: str, shape: Any, like: Any) -> Any:
        """Return memory of a shape; its content is that of the last use under this name."""
        size = math.prod(shape)
        if name not in self._buffers or self._buffers[name].numel() < size:
            self._buffers[name] = torch.empty(size, dtype=like.dtype, device=like.device)
        return self._buffers[name][:size].view(shape)

    def softmax(self, logits: Any) -> Any:
        """Return the softmax of each row."""
        with internal_softmax():
            return torch.softmax(logits, -1, out=self.weights)

    def average(self, weights: Any, logits: Any) -> Any:
        """Return the average of each row's logits, which are overwritten."""
        return logits.mul_(weights).sum(-1, keepdim=True)

    def average_distance(self, weights: Any, queries: Any, keys: Any) -> Any:
        """Return the sum of each row of weights times the distances of positions.

        Where a key lies on one side of all queries, the distance is a difference, and the sum of weighted differences is a
        product with one number per key. Only the keys between are compared with each query.
        """
        if (
            queries.ndim == 2
            and weights.shape[-1] >= MIN_GROUPED_COLUMNS
            and not backend.active().on_accelerator(weights)
        ):
            first, last = queries.aminmax()
            side = (keys > last).to(keys.dtype) - (keys < first).to(
                keys.dtype
            )  # 1 after the queries, -1 before, 0 between
            between = (side[0] == 0).nonzero()[:, 0]
            if 2 * len(between) <= weights.shape[-1]:
                middle = (first + last) / 2
                factors = torch.cat([side * (keys - middle), side])
                sums, shares = torch.mm(factors, weights.flatten(0, 2).T).view(2, *weights.shape[:-1], 1)
                near = weights.index_select(-1, between) * (queries - keys[:, between]).abs()
                return sums - (queries - middle) * shares + near.sum(-1, keepdim=True)
        # The logits are no longer needed.
        distances = self.buffer("distances", weights.shape, weights)
        torch.sub(queries.expand(*weights.shape[:-1], 1), keys, out=distances)
        return distances.abs_().mul_(weights).sum(-1, keepdim=True)

    def take(self, rows: Any, indices: Any) -> Any:
        """Return the elements of each row at its indices. Keras would look for negative ones."""
        return rows.gather(-1, indices.long())


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
        self.ops = InPlaceOps()
        self.row_edges = [int(edge) for edge in spec.edges[0]]
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
        if not self.call.normalizer.exponential:
            weights = compute_block_weights(self.call, block, query, key)
            self._add(reduce_weights(weights, self.spec.top_k), None if self.value is None else value)
            return
        logits = self._compute_logits(block, query, key)
        is_empty = self._mask_logits(block, logits)
        weights = None if self.value is None else self.ops.buffer("weights", logits.shape, logits)
        for rows in self._strips(logits):
            strip = block.replace(rows=Slice(block.rows.total, block.rows.start + rows.start, rows.stop - rows.start))
            # Without values, the weights of a strip are needed no longer than the strip, and stay in the cache.
            strip_logits = logits[:, :, rows]
            self.ops.weights = (
                self.ops.buffer("weights", strip_logits.shape, logits) if weights is None else weights[:, :, rows]
            )
            empty = None if is_empty is None else is_empty.expand(*logits.shape[:3], 1)[:, :, rows]
            reduced = reduce_softmax(self.call, strip, strip_logits, empty, self.spec.top_k, self.ops)
            self._add(reduced, None)
            if weights is not None and reduced.scale is not None:
                self.ops.weights.mul_(reduced.scale)
        if weights is not None:
            self._write("output", block, apply_weights(weights, value, block))

    def _strips(self, logits: Any) -> Iterator[slice]:
        """Yield runs of rows of a block that fit a cache; all rows on an accelerator."""
        batch, heads, rows, columns = logits.shape
        size = rows if self.on_accelerator else max(1, self.scores_per_strip // (batch * heads * columns))
        for start in range(0, rows, size):
            yield slice(start, min(start + size, rows))

    def _add(self, reduced: ReducedBlock, value: Any) -> None:
        """Add a reduced block, and its output if there are values, to the statistics."""
        for name, tensor in row_statistics(reduced, value, self.spec, self.ops).items():
            self._write(name, reduced.block, tensor)
        self._add_columns(reduced)

    def _write(self, name: str, block: Block, rows: Any) -> None:
        """Write the statistics of the rows of a block to their place."""
        slices = tuple(slice(part.start, part.start + part.length) for part in (block.batch, block.heads, block.rows))
        self.fields[name][slices].copy_(rows)

    def _compute_logits(self, block: Block, query: Any, key: Any) -> Any:
        """Compute the logits (b, n, t, s) before the mask, in memory that may be overwritten."""
        call = self.call
        if not (call.score == Dot(scale=1.0) and call.normalizer == Softmax()):
            return compute_logits(call, block, query, key).contiguous()
        logits = self.ops.buffer("logits", (*query.shape[:3], key.shape[2]), query)
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

    def _add_columns(self, reduced: ReducedBlock) -> None:
        """Add a block to the statistics of keys and coarse blocks."""
        block = reduced.block
        received, sums, maxima = (
            block.heads.take(block.batch.take(self.fields[name], 0), 1)
            for name in ("received", "block_sums", "block_max")
        )
        received = block.columns.take(received, 2)
        for coarse, rows, count in self._split_rows(block):
            weights = reduced.unnormalized[:, :, rows].unflatten(2, (count, -1))
            if reduced.scale is not None:
                weights = weights * reduced.scale[:, :, rows].unflatten(2, (count, -1))
            column_sums, column_maxima = weights.sum(-2), weights.amax(-2)  # (b, n, count, s)
            received.add_(column_sums.sum(2))
            sums[:, :, coarse].add_(split_columns(column_sums, block, self.spec).sum(-1))
            column_maxima = split_columns(column_maxima, block, self.spec).amax(-1)
            torch.maximum(maxima[:, :, coarse], column_maxima, out=maxima[:, :, coarse])

    def _split_rows(self, block: Block) -> Iterator[tuple[slice, slice, int]]:
        """Yield coarse blocks of rows, the rows of a block that lie in them, and their number.

        They come one at a time, which fits a cache; on an accelerator all at once, if they have the same size and end with the
        block.
        """
        spec, edges = self.spec, self.row_edges
        begin, end = block.rows.start, block.rows.start + block.rows.length
        first, last = spec.row_block(begin), spec.row_block(end - 1)
        size = spec.rows // spec.num_row_blocks
        if self.on_accelerator and spec.rows % spec.num_row_blocks == begin % size == end % size == 0:
            yield slice(first, last + 1), slice(None), last + 1 - first
            return
        for index in range(first, last + 1):
            rows = slice(max(edges[index], begin) - begin, min(edges[index + 1], end) - begin)
            yield slice(index, index + 1), rows, 1
