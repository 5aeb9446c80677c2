"""PyTorch: a survey, gathered block by block."""

import functools
from collections.abc import Iterator
from typing import Any

import torch

from limelight.core.block import Block, Slice
from limelight.core.precision import accumulation_dtype, upcast
from limelight.engine import placement
from limelight.engine.block_sizes import sizes
from limelight.engine.call import AttentionCall
from limelight.engine.dense_block import block_weights, prepared
from limelight.engine.reductions import LONG, Weighed, logits_of, of_weights
from limelight.engine.statistics import Plan, by_columns, cell_of
from limelight.engine.torch import blockwise, softmax
from limelight.engine.torch.distances import Distances
from limelight.engine.torch.softmax import Scratch
from limelight.normalizers import LOWEST, Softmax
from limelight.scores import Dot


@torch.no_grad()
def taken(
    call: AttentionCall, value: Any = None, *, size: int, top_k: int, num_blocks: int, align: str | None
) -> tuple[dict[str, Any], tuple[Any, Any, Any]]:
    """What there is to say of each row, by name, and of keys and coarse blocks; in blocks of about so many scores."""
    call, plan = prepared(call), Plan.of(call, top_k, num_blocks, align)
    walk = Walk(call, value, plan, size // 2)
    # Products are quicker for more rows than a cache holds.
    for block in blockwise.tiles(call, sizes(call, 8 * size)):
        walk.step(block)
    return walk.rows, (walk.received, walk.sums, walk.peaks)


class Walk:
    """The blocks, one after another, and what they have said so far.

    Args:
        question: what is asked, with queries and keys prepared.
        value: (B, K, S, V), or None.
        plan: what the survey is to hold.
        size: about how many scores are gone over at a time.
    """

    def __init__(self, call: AttentionCall, value: Any, plan: Plan, size: int) -> None:
        self.call, self.value, self.plan, self.size = call, value, plan, size
        query = call.query
        lead, dtype = tuple(query.shape[:2]), getattr(torch, accumulation_dtype(query.dtype))
        self.rows = room(call, value, plan, dtype)
        self.received = query.new_zeros((*lead, plan.columns), dtype=dtype)
        self.sums, self.peaks = (
            query.new_zeros((*lead, plan.row_cells, plan.column_cells), dtype=dtype) for _ in range(2)
        )
        self.distances = Distances(call.block, plan, self.received)
        self.edges = [int(edge) for edge in plan.edges[0]]
        self.several = placement.accelerated(query)
        self.scratch = Scratch()

    def step(self, block: Block) -> None:
        """Take a block."""
        call, key = self.call, self.call.key
        query, key, value = blockwise.parts(block, call.query, key, key if self.value is None else self.value)
        if 1 < key.shape[1] < query.shape[1]:
            key, value = (one.repeat_interleave(query.shape[1] // one.shape[1], 1) for one in (key, value))
        weighed, columns = self.weighed(block, query, key)
        raised = weighed.raised
        said = {
            "entropy": weighed.entropy,
            "logsumexp": weighed.logsumexp,
            "top_keys": torch.where(weighed.largest > 0, weighed.places + block.columns.start, -1),
            "top_weights": weighed.largest,
            "distance": weighed.shared(self.distances.sums(block, raised, self.scratch))[..., 0],
            "mass": weighed.mass,
        }
        if self.value is not None:
            dtype = torch.promote_types(raised.dtype, value.dtype)
            said["output"] = weighed.shared(torch.matmul(raised.to(dtype), value.to(dtype)))
        here = tuple(slice(span.start, span.start + span.length) for span in (block.batch, block.heads, block.rows))
        for name, one in said.items():
            place = self.rows[name][here]
            (place[..., : one.shape[-1]] if name.startswith("top") else place).copy_(one)
        self.gather(weighed, columns)

    def weighed(self, block: Block, query: Any, key: Any) -> tuple[Weighed, Any]:
        """The weights of a block, and the sums and maxima of its columns for each coarse block of rows, where they are known."""
        call, plan = self.call, self.plan
        if not call.normalizer.exponential:
            return of_weights(block_weights(call, block, query, key), plan.top_k), None
        forbidden, empty = self.forbidden(block)
        logits = self.logits(block, query, key)
        for columns, where in forbidden:
            logits[..., columns].masked_fill_(where, LOWEST)
        if logits.shape[:2] == (1, 1) and logits.shape[-1] >= LONG and not self.several:
            pieces, most = [rows for _, rows, _ in self.cut(block)], max(1, self.size // logits.shape[-1])
            found = softmax.by_strips(logits[0, 0], pieces, most, self.scratch)
        else:
            found = softmax.whole(logits, self.scratch)
        sinks = call.normalizer.sinks(block)
        weighed = softmax.weighed(block, found, empty, sinks, plan.top_k)
        if found.columns is None or weighed.share is not None:
            return weighed, None
        num_blocks = [num_blocks for num_blocks, _, _ in self.cut(block)]
        return weighed, (slice(num_blocks[0].start, num_blocks[-1].stop), *found.columns)

    def logits(self, block: Block, query: Any, key: Any) -> Any:
        """What the exponentials of a block are taken of, (b, n, t, s), before the mask."""
        call = self.call
        if not (call.score == Dot(scale=1.0) and call.normalizer == Softmax()):
            return logits_of(call, block, query, key).contiguous()
        found = self.scratch.room("scores", (*query.shape[:3], key.shape[2]), query)
        key = upcast(key).expand(*query.shape[:2], -1, -1).flatten(0, 1)
        torch.bmm(query.flatten(0, 1), key.transpose(1, 2), out=found.flatten(0, 1))
        return found

    def forbidden(self, block: Block) -> tuple[list[tuple[slice, Any]], Any]:
        """Runs of columns of a block, each with what the mask forbids there, (b, n, t, s), and which rows permit nothing.

        A mask is looked at only in those columns that it does not permit to all rows.
        """
        mask, columns = self.call.mask, block.columns
        if mask is None:
            return [], None
        begin, end = (int(bound) - columns.start for bound in mask.kv_full_range(block))
        begin = min(max(begin, 0), columns.length)
        end = min(max(end, begin), columns.length)
        some, found = torch.full((), begin < end, device=self.received.device), []
        for first, last in ((0, begin), (end, columns.length)):
            if first < last:
                permitted = mask(block.replace(columns=Slice(columns.total, columns.start + first, last - first)))
                found.append((slice(first, last), ~permitted))
                some = some | permitted.any(-1, keepdim=True)
        return found, None if bool(some.all()) else ~some

    def gather(self, weighed: Weighed, columns: Any) -> None:
        """Add what a block contributes to its keys and coarse blocks, for which sums and maxima of its columns may be known."""
        block, plan = weighed.block, self.plan
        received, sums, peaks = (
            block.heads.of(block.batch.of(one, 0), 1) for one in (self.received, self.sums, self.peaks)
        )
        received = block.columns.of(received, 2)
        for num_blocks, mass, most in self.columns(weighed) if columns is None else [columns]:  # (b, n, count, s)
            received.add_(mass.sum(2))
            mass, most = (by_columns(one, block, plan) for one in (mass, most))
            sums[:, :, num_blocks].add_(mass.sum(-1))
            torch.maximum(peaks[:, :, num_blocks], most.amax(-1), out=peaks[:, :, num_blocks])

    def columns(self, weighed: Weighed) -> Iterator[tuple[slice, Any, Any]]:
        """Which coarse blocks of rows lie together, and the sum and the maximum of each column in them, (b, n, count, s)."""
        for num_blocks, rows, count in self.cut(weighed.block):
            some = weighed.raised[:, :, rows].unflatten(2, (count, -1))
            if weighed.share is not None:
                some = some * weighed.share[:, :, rows].unflatten(2, (count, -1))
            yield num_blocks, some.sum(-2), some.amax(-2)

    def cut(self, block: Block) -> Iterator[tuple[slice, slice, int]]:
        """Coarse blocks of rows, which rows of a tile lie in them, and how many they are: one at a time, which fits a cache; on
        an accelerator all at once, where they are equally long and none goes on in another tile."""
        plan, edges = self.plan, self.edges
        begin, end = block.rows.start, block.rows.start + block.rows.length
        first, last = (cell_of(row, plan.rows, plan.row_cells) for row in (begin, end - 1))
        long = plan.rows // plan.row_cells
        if self.several and plan.rows % plan.row_cells == 0 and begin % long == 0 and end % long == 0:
            yield slice(first, last + 1), slice(None), last + 1 - first
            return
        for cell in range(first, last + 1):
            rows = slice(max(edges[cell], begin) - begin, min(edges[cell + 1], end) - begin)
            yield slice(cell, cell + 1), rows, 1


def room(call: AttentionCall, value: Any, plan: Plan, dtype: Any) -> dict[str, Any]:
    """Room for what is said of all rows, (B, N, T, ...), filled with what is said of those that may attend to nothing."""
    shape = tuple(call.query.shape[:3])
    nothing = float("-inf" if call.normalizer.exponential else "nan")
    make = functools.partial(torch.full, dtype=dtype, device=call.query.device)
    found = {
        **{name: make(shape, 0.0) for name in ("entropy", "distance", "mass")},
        "logsumexp": make(shape, nothing),
        "top_keys": make((*shape, plan.top_k), -1, dtype=torch.int32),
        "top_weights": make((*shape, plan.top_k), 0.0),
    }
    return found if value is None else {**found, "output": make((*shape, value.shape[-1]), 0.0, dtype=value.dtype)}
