"""From what a layer computes to an `AttentionCall`, and from there to what maps keep."""

import dataclasses
import functools
import operator
from typing import Any

import keras
import numpy as np
from keras import ops

from limelight import functional, masks, scores
from limelight._attention_statistics import AttentionStatistics
from limelight.core.block import Block
from limelight.core.precision import upcast
from limelight.core.shapes import shape_of
from limelight.engine import statistics as engine_statistics
from limelight.engine.call import AttentionCall
from limelight.inspection.layouts import Layout, check_layout
from limelight.maps import QKSource, StatisticsSource, StoredMask, WeightSource
from limelight.maps.sources import Source
from limelight.masks import Mask
from limelight.normalizers import Normalizer, Softmax
from limelight.scores.additive import Readout
from limelight.scores.score import Term, prepare_score


@dataclasses.dataclass(frozen=True, eq=False)
class ObservedAttention:
    r"""One attention as an adapter reports it: its queries and keys, or its weights if nothing else can be had.

    $$w_{ij} = \mathrm{softmax}_j\big(\mathrm{cap}(c\,q_i \cdot k_j) + b_{ij}\big)$$ over the permitted keys $j$.

    Args:
        query: (B, T, H) or (B, N, T, H). Heads are axis -3; an attention without heads may leave the axis out.
        key: (B, S, H) or (B, K, S, H), where K divides N.
        scale: the factor $c$, a number or a scalar tensor; $1/\sqrt{H}$ by default.
        vector: $v$, (H,), for the additive score $c\,v^\top \tanh(q_i + k_j)$ in place of the product.
        softcap: scores pass through $m \tanh(s / m)$; None for no cap.
        bias: added to the scores, broadcastable to (B, N, T, S).
        weights: (B, T, S) or (B, N, T, S), in place of all of the above.
        layout: the axes of `weights` if they are others: a letter each, b batch, n heads, t queries, s keys, as in "btns"; any
            other letter is a further batch axis.
        heads_in_batch: the number of heads if they vary fastest along the batch axis of `weights`, (B * N, T, S).
        keys: bool (B, S), True where a key is real.
        queries: bool (B, T), True where a query is real.
        array: bool, broadcastable to (B, N, T, S), True where a query may attend to a key.
        left, right: how many keys before and after its own position a query may attend to; `right=0` is causal.
        align: "start" if the first query and the first key have the same position, "end" if the last ones have.

    Raises:
        ValueError: both or neither of queries with keys and weights are given, `align` is unknown, or a layout does not fit.
    """

    query: Any = None
    key: Any = None
    scale: Any = None
    vector: Any = None
    softcap: float | None = None
    bias: Any = None
    weights: Any = None
    keys: Any = None
    queries: Any = None
    array: Any = None
    left: int | None = None
    right: int | None = None
    align: str = "start"
    layout: str | None = None
    heads_in_batch: int = 1

    def __post_init__(self) -> None:
        if (self.weights is None) == (self.query is None or self.key is None):
            given = [field.name for field in dataclasses.fields(self) if getattr(self, field.name) is not None]
            raise ValueError(
                f"An ObservedAttention must have either `query` and `key`, or `weights`. Received: {', '.join(given)}."
            )
        if self.align not in ("start", "end"):
            raise ValueError(f'`align` must be "start" or "end". Received: align={self.align!r}.')
        check_layout(self.layout, self.heads_in_batch)
        if self.layout is not None or self.heads_in_batch > 1:
            self._transpose_weights()

    def _transpose_weights(self) -> None:
        """Transpose the weights to (B, ..., N, T, S)."""
        rank = 0 if self.weights is None else len(self.weights.shape)
        letters = ("bts" if rank == 3 else "bnts") if self.layout is None else self.layout
        if rank != len(letters):
            raise ValueError(
                f"`layout` must have a letter for each axis of `weights`. Received: layout={letters!r} and {rank} axes."
            )
        weights = Layout.parse(letters, self.heads_in_batch).to_heads(self.weights)
        for name, value in (("weights", weights), ("layout", None), ("heads_in_batch", 1)):
            object.__setattr__(self, name, value)

    def to_call(self, layer: Any = None) -> AttentionCall:
        """Convert to an `AttentionCall` of a layer. Axes between B and N, such as steps, become part of the batch axis."""
        whole = self.query if self.weights is None else self.weights
        if len(whole.shape) == 3:
            with_heads = {name: getattr(self, name) for name in ("query", "key", "weights")}
            with_heads = {name: None if x is None else ops.expand_dims(x, -3) for name, x in with_heads.items()}
            return dataclasses.replace(self, **with_heads).to_call(layer)
        if self.weights is None:
            query, key = _broadcast_batch(self.query, self.key)
            if query is not self.query or key is not self.key:
                return dataclasses.replace(self, query=query, key=key).to_call(layer)
        leading_shape = shape_of(whole)[:-2]
        batch, rank = leading_shape[:-1], len(whole.shape)
        normalizer: Normalizer
        if self.weights is None:
            query, key, score = self._score()
            query, key, normalizer = _merge_batch(query, batch), _merge_batch(key, batch), Softmax()
            if self.bias is not None:
                score = score + scores.Bias(_merge_batch(_with_rank(self.bias, rank), batch))
        else:
            weights = _merge_batch(self.weights, batch)
            score, normalizer = scores.Bias(weights), GivenWeights()
            # Nothing is computed from them: they carry the lengths.
            query, key = weights[..., :1], ops.swapaxes(weights[:, :, :1], -1, -2)
        block = Block.full(shape_of(query)[0], query.shape[1], shape_of(query)[2], shape_of(key)[2])
        return AttentionCall(query, key, score, self._mask(batch, rank), normalizer, block, leading_shape, layer)

    def _score(self) -> tuple[Any, Any, Any]:
        """Return the queries, the keys and the score of them, without the bias."""
        query, key = self.query, self.key
        scale = query.shape[-1] ** -0.5 if self.scale is None else self.scale
        if self.vector is not None:
            query, key = upcast(query), upcast(key)
            vector = ops.cast(self.vector, query.dtype) * ops.cast(scale, query.dtype)
            score: Any = Readout(ops.expand_dims(vector, -1))
        elif _is_setting(scale):
            score = scores.Dot(float(scale))
        else:
            query, score = upcast(query), scores.Dot(1.0)
            query = query * ops.cast(scale, query.dtype)
        return query, key, score if self.softcap is None else scores.SoftCap(score, self.softcap)

    def _mask(self, batch: tuple, rank: int) -> Mask | None:
        parts: list[Mask] = []
        keys, queries = (
            None if part is None else _merge_batch(ops.cast(part, "bool"), batch, kept=1)
            for part in (self.keys, self.queries)
        )
        if keys is not None or queries is not None:
            parts.append(masks.Padding(keys, queries))
        if self.array is not None:
            parts.append(masks.ArrayMask(_merge_batch(ops.cast(_with_rank(self.array, rank), "bool"), batch)))
        if self.left is not None or self.right is not None or self.align == "end":
            parts.append(masks.SlidingWindow(self.left, self.right, self.align))
        return functools.reduce(operator.and_, parts) if parts else None


class GivenWeights(Normalizer):
    """Take the scores of a call as its weights: those of a layer of which only the weights were seen."""

    def __call__(self, scores: Any, mask: Any, *, block: Block) -> Any:
        return scores if mask is None else ops.where(mask, scores, 0.0)


def export_call(
    call: AttentionCall | AttentionStatistics, as_weights: bool = False
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Split what maps keep of a call into tensors, which travel through a compiled model, and settings, which do not.

    Both have the names of `ObservedAttention`, or of `AttentionStatistics`. If maps could not compute the weights from queries
    and keys, the weights are exported.

    Args:
        call: the call, or its statistics.
        as_weights: export the weights in any case.
    """
    if isinstance(call, AttentionStatistics):
        return {name: ops.convert_to_tensor(x) for name, x in call._asdict().items() if x is not None}, {}
    fields = None if as_weights else _export_score(call)
    fields = {"weights": functional.compute_weights(call)} if fields is None else {**fields, **_export_mask(call)}
    fields = {name: value for name, value in fields.items() if value is not None}
    tensors = {
        name: ops.convert_to_tensor(value) if name == "vector" else split_batch(call, ops.convert_to_tensor(value))
        for name, value in fields.items()
        if not _is_setting(value)
    }
    return tensors, {name: value for name, value in fields.items() if _is_setting(value)}


def to_source(tensors: dict[str, Any], settings: dict[str, Any]) -> Source:
    """Make a map's source from tensors that a model returned, and the settings that belong to them."""
    arrays: dict[str, Any] = {name: to_numpy(tensor) for name, tensor in tensors.items()}
    if "entropy" in arrays:
        return StatisticsSource(**arrays)
    if "weights" in arrays:
        rows, columns = arrays["weights"].shape[-2:]
    else:
        rows, columns = arrays["query"].shape[-2], arrays["key"].shape[-2]
    offset = columns - rows if settings.get("align") == "end" else 0
    fields: dict[str, Any] = {
        name: arrays[name].astype(bool) for name in ("keys", "queries", "array") if name in arrays
    }
    mask = StoredMask(**fields, left=settings.get("left"), right=settings.get("right"), offset=offset)
    if "weights" in arrays:
        return WeightSource(arrays["weights"], mask)
    fields = {name: arrays[name] for name in ("query", "key", "vector", "bias") if name in arrays}
    return QKSource(**fields, scale=settings["scale"], softcap=settings.get("softcap"), mask=mask)


def to_numpy(tensor: Any) -> np.ndarray:
    """Convert a tensor to numpy; bfloat16, which numpy does not have of itself, to float32."""
    array = tensor if isinstance(tensor, np.ndarray) else keras.ops.convert_to_numpy(tensor)
    return array.astype(np.float32) if array.dtype.kind == "V" or array.dtype.name == "bfloat16" else array


def compute_statistics(call: AttentionCall, top_k: int, num_blocks: int) -> AttentionStatistics:
    """Compute the statistics of a call, with the batch axes of its layer and with distances as maps count them."""
    align = _split_mask(call.mask, call.block)[0].get("align", "start")
    statistics = engine_statistics.compute_statistics(call, None, top_k=top_k, num_blocks=num_blocks, align=align)
    fields = {name: x for name, x in statistics._asdict().items() if x is not None and "edges" not in name}
    return statistics._replace(**{name: split_batch(call, x) for name, x in fields.items()})


def _export_score(call: AttentionCall) -> dict[str, Any] | None:
    """Return what maps can compute the weights from, the mask aside; None if there is no such form."""
    normalizer: Any = call.normalizer
    score: Any = call.score
    if isinstance(normalizer, GivenWeights):
        return {"weights": score.array}
    # The very class: a subclass may compute something else.
    if type(normalizer) is not Softmax:
        return None
    factor = 1 / normalizer.temperature
    query, key, score = prepare_score(score, call.query, call.key, block=call.block)
    bias = None
    while type(score) is scores.Sum and (isinstance(score.left, Term) or isinstance(score.right, Term)):
        term, score = (score.left, score.right) if isinstance(score.left, Term) else (score.right, score.left)
        added = term(query, key, block=call.block)
        bias = added if bias is None else bias + added
    fields: dict[str, Any] = {"query": query, "key": key}
    if bias is not None:
        fields["bias"] = _with_rank(bias * factor, 4)
    if type(score) is scores.SoftCap and factor == 1:
        fields["softcap"], score = float(score.cap), score.score
    if type(score) is scores.Dot:
        return {**fields, "scale": float(score.factor(query.shape[-1])) * factor}
    if type(score) is Readout:
        return {**fields, "vector": ops.squeeze(score.kernel, -1), "scale": factor}
    return None


def _export_mask(call: AttentionCall) -> dict[str, Any]:
    """Return the mask as fields of T + S numbers as far as possible, and the rest of it as one array."""
    fields, rest = _split_mask(call.mask, call.block)
    if rest is not None:
        fields["array"] = _with_rank(rest(call.block), 4)
    return fields


def _split_mask(mask: Mask | None, block: Block) -> tuple[dict[str, Any], Mask | None]:
    """Split a mask into fields of `ObservedAttention` and a mask that has no such form."""
    fields: dict[str, Any] = {}
    rest: Mask | None = None
    has_positions = block.given_query_positions is not None or block.given_key_positions is not None
    part: Any
    for part in _iter_parts(mask):
        is_band = type(part) in (masks.Causal, masks.SlidingWindow) and not has_positions
        if is_band and fields.get("align", part.align) == part.align:
            left, right = (None, 0) if isinstance(part, masks.Causal) else (part.left, part.right)
            fields["left"], fields["right"] = _smaller(fields.get("left"), left), _smaller(fields.get("right"), right)
            fields["align"] = part.align
        elif type(part).__call__ is masks.Padding.__call__:
            for name in ("keys", "queries"):
                padding = getattr(part, name)
                if padding is not None:
                    padding = ops.reshape(padding, (-1, ops.shape(padding)[-1]))
                    fields[name] = ops.logical_and(fields[name], padding) if name in fields else padding
        else:
            rest = part if rest is None else rest & part
    return fields, rest


def _iter_parts(mask: Mask | None) -> list[Any]:
    """Return the masks that are AND-ed."""
    if type(mask) is masks.And:
        return [*_iter_parts(mask.left), *_iter_parts(mask.right)]
    return [] if mask is None else [mask]


def _smaller(left: int | None, right: int | None) -> int | None:
    if left is None or right is None:
        return right if left is None else left
    return min(left, right)


def _with_rank(tensor: Any, rank: int) -> Any:
    """Add axes of length 1 for heads and batch to a mask or bias: (T, S), (B, T, S) or (B, N, T, S)."""
    tensor = ops.convert_to_tensor(tensor)
    if len(tensor.shape) == rank - 1:
        return ops.expand_dims(tensor, -3)
    return ops.reshape(tensor, (*(1,) * (rank - len(tensor.shape)), *shape_of(tensor)))


def _broadcast_batch(query: Any, key: Any) -> tuple[Any, Any]:
    """Broadcast the batch axes of queries and keys that have length 1 in one of them: those of a learned query, for example."""
    lengths = [*zip(query.shape[:-3], key.shape[:-3], strict=True)]
    shapes = [*zip(shape_of(query)[:-3], shape_of(key)[:-3], strict=True)]
    batch = [sizes[1] if length[0] == 1 else sizes[0] for length, sizes in zip(lengths, shapes, strict=True)]
    if any(length[0] == 1 != length[1] for length in lengths):
        query = ops.broadcast_to(query, (*batch, *shape_of(query)[-3:]))
    if any(length[1] == 1 != length[0] for length in lengths):
        key = ops.broadcast_to(key, (*batch, *shape_of(key)[-3:]))
    return query, key


def _merge_batch(tensor: Any, batch: tuple, kept: int = 3) -> Any:
    """Merge the batch axes (B, steps, ...) before the last `kept` axes of a tensor; those of length 1 broadcast."""
    if len(batch) < 2:
        return tensor
    lengths, tail = tensor.shape[:-kept], shape_of(tensor)[-kept:]
    if all(length == 1 for length in lengths):
        return ops.reshape(tensor, (1, *tail))
    if any(length == 1 for length in lengths):
        tensor = ops.broadcast_to(tensor, (*batch, *tail))
    return ops.reshape(tensor, (-1, *tail))


def split_batch(call: AttentionCall, tensor: Any) -> Any:
    """Undo `_merge_batch` for a tensor (B, ...) of a call; an axis of length 1 stays one."""
    batch = call.leading_shape[:-1]
    if len(batch) < 2:
        return tensor
    batch = (1,) * len(batch) if tensor.shape[0] == 1 else (-1, *batch[1:])
    return ops.reshape(tensor, (*batch, *shape_of(tensor)[1:]))


def _is_setting(value: Any) -> bool:
    """Return True if a value is known before the model runs."""
    return isinstance(value, (bool, int, float, str))
