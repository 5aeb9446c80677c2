"""What limelight's own layers ask: they say so themselves."""

from collections.abc import Callable
from typing import Any

from keras import ops

from limelight import functional, masks, normalizers, scores
from limelight.engine.call import AttentionCall
from limelight.inspection.observation import Observation
from limelight.inspection.recorder import Recorder
from limelight.scores.networks import Readout
from limelight.scores.score import Term


def observation(call: AttentionCall) -> Observation:
    """A question in the form in which maps keep it; its weights where numpy has no form for its parts."""
    scored = _scored(call)
    if scored is None:
        return Observation(weights=_unfolded(call, functional.weights(call)))
    found = {**scored, **_permissions(call)}
    spread = ("query", "key", "array", "bias", "keys", "queries")
    return Observation(**{name: _unfolded(call, value) if name in spread else value for name, value in found.items()})


def output(recorder: Recorder, original: Callable[..., Any], call: AttentionCall, value: Any, **kwargs: Any) -> Any:
    """The heads' outputs of one of our layers, or what stands in their place."""
    result = original(call, value, **kwargs)
    if call.owner is None or recorder.touch is None:
        return result
    path = recorder.path(call.owner)
    record = next((one for one in reversed(recorder.records) if one.path == path), None)
    return recorder.touched(record, result, lambda tensor: tensor, lambda: value)


def _scored(call: AttentionCall) -> dict[str, Any] | None:
    """Queries, keys and numbers of the scores, where the parts are ones that maps know."""
    normalizer: Any = call.normalizer
    # The classes themselves: a subclass may compute something else.
    if type(normalizer) is not normalizers.Softmax:
        return None
    cold = 1 / normalizer.temperature
    score: Any
    query, key, score = call.score.prepare(call.query, call.key, block=call.block)
    bias = None
    while type(score) is scores.Sum and (isinstance(score.left, Term) or isinstance(score.right, Term)):
        term, score = (score.left, score.right) if isinstance(score.left, Term) else (score.right, score.left)
        added = term(query, key, block=call.block)
        bias = added if bias is None else bias + added
    capped = {}
    if type(score) is scores.SoftCap and cold == 1:
        capped, score = {"softcap": float(score.cap)}, score.score
    found: dict[str, Any] = {"query": query, "key": key, "bias": bias if bias is None else bias * cold, **capped}
    if type(score) is scores.Dot:
        return {**found, "scale": float(score.factor(query.shape[-1])) * cold}
    if type(score) is Readout:
        return {**found, "vector": ops.squeeze(score.kernel, -1), "scale": cold}
    return None


def _permissions(call: AttentionCall) -> dict[str, Any]:
    """The mask in parts that take T + S numbers, as far as it has them; the rest as one array."""
    found: dict[str, Any] = {}
    dense = None
    mask: Any
    reach: tuple[int | None, int | None]
    counted = call.block.given_query_positions is None and call.block.given_key_positions is None
    for mask in _flattened(call.mask):
        known = type(mask) in (masks.Causal, masks.SlidingWindow)
        align = mask.align if known else "end"
        placed = counted and known and found.get("align", align) == align
        if placed:
            reach = (None, 0) if isinstance(mask, masks.Causal) else (mask.left, mask.right)
            nearer = {name: _nearer(found.get(name), own) for name, own in zip(("left", "right"), reach, strict=True)}
            found |= {**nearer, "align": align}
        elif isinstance(mask, masks.Padding):
            for name in ("keys", "queries"):
                given = getattr(mask, name)
                if given is not None:
                    flat = ops.reshape(given, (-1, ops.shape(given)[-1]))
                    found[name] = ops.logical_and(found[name], flat) if name in found else flat
        else:
            dense = mask if dense is None else dense & mask
    if dense is not None:
        found["array"] = dense(call.block)
    return found


def _nearer(one: int | None, other: int | None) -> int | None:
    return other if one is None else one if other is None else min(one, other)


def _flattened(mask: Any) -> list[Any]:
    """The masks that are AND-ed."""
    if mask is None:
        return []
    return [*_flattened(mask.left), *_flattened(mask.right)] if type(mask) is masks.And else [mask]


def _unfolded(call: AttentionCall, tensor: Any) -> Any:
    """A tensor (B, ...) with the steps that the layer's input had between examples and heads."""
    if tensor is None or len(call.lead) < 3 or ops.shape(tensor)[0] == 1:
        extra = max(len(call.lead) - 2, 0) if tensor is not None else 0
        for _ in range(extra):
            tensor = ops.expand_dims(tensor, 0)
        return tensor
    return ops.reshape(tensor, (*call.lead[:-1], *tuple(ops.shape(tensor))[1:]))
