"""What limelight's own layers ask: they say so themselves."""

from typing import Any

from keras import ops

from limelight import attention, masks, normalizers, scores
from limelight.observe.observation import Observation
from limelight.question import Question


def observation(question: Question) -> Observation:
    """A question in the form in which maps keep it; its weights where numpy has no form for its parts."""
    scored = _scored(question)
    if scored is None:
        return Observation(weights=_unfolded(question, attention.weights(question)))
    parts = _permissions(question)
    names = [name for name in ("query", "key", "array") if name in {**scored, **parts}]
    found = {**scored, **parts}
    return Observation(**{**found, **{name: _unfolded(question, found[name]) for name in names}})


def _scored(question: Question) -> dict[str, Any] | None:
    """Queries, keys and numbers of the scores, where the parts are ones that maps know."""
    query, key = question.query, question.key
    score: Any = question.score
    normalizer: Any = question.normalizer
    # The classes themselves: a subclass may compute something else.
    if type(normalizer) is not normalizers.Softmax:
        return None
    cold = 1 / normalizer.temperature
    if type(score) is scores.Dot:
        return {"query": query, "key": key, "scale": score.factor(query.shape[-1]) * cold}
    if type(score) is scores.Bilinear:
        return {"query": ops.matmul(query, score.kernel), "key": key, "scale": cold}
    if type(score) is scores.Additive:
        hidden = ops.matmul(query, score.query_kernel) + score.bias
        vector = ops.squeeze(score.readout, -1)
        return {"query": hidden, "key": ops.matmul(key, score.key_kernel), "vector": vector, "scale": cold}
    return None


def _permissions(question: Question) -> dict[str, Any]:
    """The mask in parts that take T + S numbers, as far as it has them; the rest as one array."""
    found: dict[str, Any] = {}
    dense = None
    mask: Any
    for mask in _flattened(question.mask):
        if type(mask) is masks.Causal and "ahead" not in found and question.tile.given_queries is None:
            found |= {"ahead": 0, "align": mask.align}
        elif type(mask) is masks.Padding:
            for name in ("keys", "queries"):
                given = getattr(mask, name)
                if given is not None:
                    flat = ops.reshape(given, (-1, given.shape[-1] or ops.shape(given)[-1]))
                    found[name] = ops.logical_and(found[name], flat) if name in found else flat
        else:
            dense = mask if dense is None else dense & mask
    if dense is not None:
        found["array"] = dense(question.tile)
    return found


def _flattened(mask: Any) -> list[Any]:
    """The masks that are AND-ed."""
    if mask is None:
        return []
    return [*_flattened(mask.left), *_flattened(mask.right)] if type(mask) is masks.And else [mask]


def _unfolded(question: Question, tensor: Any) -> Any:
    """A tensor (B, N, ...) with the steps that the layer's input had between B and N."""
    if len(question.lead) < 3:
        return tensor
    return ops.reshape(tensor, (*question.lead[:-1], *tuple(ops.shape(tensor))[1:]))
