"""The survey of what a model asked, computed inside the model, in place of what it asked."""

import dataclasses
import functools
from typing import Any

from keras import ops

from limelight import masks, scores
from limelight._attention_statistics import AttentionStatistics
from limelight.core.block import Block
from limelight.core.precision import dot_products, upcast
from limelight.engine import statistics_dispatch
from limelight.engine.call import AttentionCall
from limelight.masks import Mask
from limelight.normalizers import Normalizer, Softmax
from limelight.scores import Score


@dataclasses.dataclass(frozen=True)
class Wanted:
    """What a survey is to hold: as `limelight.attention_statistics` takes it."""

    top_k: int
    num_blocks: int


@dataclasses.dataclass(frozen=True, eq=False)
class StatisticsSource:
    """A survey in the place of an observation."""

    attention_statistics: AttentionStatistics

    # There is no single query whose weights would be fewer numbers.
    query = None

    def laid_out(self) -> "StatisticsSource":
        """The same: a survey has its axes already."""
        return self

    def split(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """The tensors, and no numbers."""
        fields = self.attention_statistics._asdict()
        return {name: ops.convert_to_tensor(one) for name, one in fields.items() if one is not None}, {}


def of_question(call: AttentionCall, wanted: Wanted) -> StatisticsSource:
    """The survey of a question of one of limelight's layers."""
    found = taken(call, wanted, aligned(call.mask))
    return StatisticsSource(reshaped(found, call.lead[:-1]))


def of_observation(seen: Any, wanted: Wanted) -> StatisticsSource:
    """The survey of a laid out observation, whatever was seen."""
    if isinstance(seen, StatisticsSource):
        return seen
    whole = seen.query if seen.weights is None else seen.weights
    lead = tuple(ops.shape(whole))[:-3]
    mask = permissions(seen, lead)
    if seen.weights is None:
        fields = {name: getattr(seen, name) for name in ("scale", "vector", "softcap")}
        bias = None if seen.bias is None else folded(seen.bias, lead)
        score, normalizer = Scoring(**fields, bias=bias), Softmax()
        query, key = folded(seen.query, lead), folded(seen.key, lead)
    else:
        weights = folded(seen.weights, lead)
        score, normalizer = scores.Bias(weights), AsTheyAre()
        query, key = weights[..., :1], ops.swapaxes(weights[:, :, :1], -1, -2)
    block = Block.full(ops.shape(query)[0], query.shape[1], ops.shape(query)[2], ops.shape(key)[2])
    call = AttentionCall(query, key, score, mask, normalizer, block, ())
    return StatisticsSource(reshaped(taken(call, wanted, seen.align), lead))


def taken(call: AttentionCall, wanted: Wanted, align: str) -> AttentionStatistics:
    """The survey of a question, in which queries and keys are counted as in maps."""
    return statistics_dispatch.taken(call, None, top_k=wanted.top_k, num_blocks=wanted.num_blocks, align=align)


def aligned(mask: Mask | None) -> str:
    """MaskFunction queries and keys are counted from: as the mask of a band counts them, else from the start."""
    if isinstance(mask, masks.And):
        left = aligned(mask.left)
        return aligned(mask.right) if left == "start" else left
    return mask.align if type(mask) in (masks.Causal, masks.SlidingWindow) else "start"  # pyright: ignore[reportOptionalMemberAccess, reportAttributeAccessIssue]


def permissions(seen: Any, lead: tuple) -> Mask | None:
    """The permissions of an observation as a mask."""
    parts: list[Mask] = []
    padding = {name: getattr(seen, name) for name in ("keys", "queries")}
    padding = {name: ops.cast(folded(one, lead, 1), "bool") for name, one in padding.items() if one is not None}
    if padding:
        parts.append(masks.Padding(padding.get("keys"), padding.get("queries")))
    if seen.array is not None:
        parts.append(masks.ArrayMask(ops.cast(folded(seen.array, lead), "bool")))
    if seen.left is not None or seen.right is not None:
        parts.append(masks.SlidingWindow(seen.left, seen.right, align=seen.align))
    return functools.reduce(lambda left, right: left & right, parts) if parts else None


def folded(tensor: Any, lead: tuple, kept: int = 3) -> Any:
    """A tensor (B, steps, ...) with one axis before its last `kept`; leading axes of length 1 are repeated."""
    if len(lead) < 2:
        return tensor
    tail = tuple(ops.shape(tensor))[-kept:]
    return ops.reshape(ops.broadcast_to(tensor, (*lead, *tail)), (-1, *tail))


def reshaped(found: AttentionStatistics, lead: tuple) -> AttentionStatistics:
    """A survey with the axes before that of the heads as they were."""
    if len(lead) < 2:
        return found
    fields = {name: one for name, one in found._asdict().items() if one is not None and "edges" not in name}
    return found._replace(
        **{name: ops.reshape(one, (*lead, *tuple(ops.shape(one))[1:])) for name, one in fields.items()}
    )


@dataclasses.dataclass(frozen=True, eq=False)
class Scoring(Score):
    """The score of an observation; its fields as there."""

    scale: Any
    vector: Any = None
    softcap: float | None = None
    bias: Any = None

    @property
    def cost(self) -> int:
        return 1 if self.vector is None else self.vector.shape[0]

    def __call__(self, query: Any, key: Any, *, block: Block) -> Any:
        if self.vector is None:
            found = dot_products(query, key)
        else:
            hidden = ops.tanh(ops.expand_dims(upcast(query), -2) + ops.expand_dims(upcast(key), -3))
            found = ops.sum(hidden * self.vector, axis=-1)
        found = found * ops.cast(self.scale, found.dtype)
        found = found if self.softcap is None else self.softcap * ops.tanh(found / self.softcap)
        return found if self.bias is None else found + block.align(ops.cast(self.bias, found.dtype), "bnts")


class AsTheyAre(Normalizer):
    """Weights that are given as scores."""

    def __call__(self, scores: Any, mask: Any, *, block: Block) -> Any:
        return scores if mask is None else ops.where(mask, scores, 0.0)
