"""Rankings of the tokens of each example: from attention, from gradients, and by removing tokens."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from limelight import analysis, evaluate
from limelight.explanation.checkpoint import Checkpoint
from limelight.explanation.instrumented import Batch, InstrumentedModel, get_projection
from limelight.explanation.subjects import Subject
from limelight.inspection._observed_attention import to_numpy

TITLES = {
    "attention": "attention",
    "rollout": "attention rollout",
    "gradient_times_attention": "gradient × attention",
    "norm_weighted": "norm-weighted attention",
    "value_zeroing": "value zeroing",
    "gradient_times_input": "gradient × input",
    "integrated_gradients": "integrated gradients",
    "occlusion": "occlusion",
    "leave_one_out": "leave-one-out",
    "random": "random tokens",
}
# The width of the window of occlusion.
OCCLUSION_WIDTH = 3
_QUERIES_AT_ONCE = 64
_BY_VALUES = ("norm_weighted", "value_zeroing")
_FIXED = "gradients with fixed attention"

Scores = list[np.ndarray]


@dataclasses.dataclass(eq=False)
class Attributions:
    """The results of one pass over the examples.

    Args:
        rankings: the scores (T,) of each example, by the name of the ranking.
        gradients: the derivative by a gate on each token with the attention held fixed (T,), for the agreement with gradients.
        weights: the weights of the explained attention (N, T, S), without padding unless the model takes one length alone.
        permitted: where other weights may be put in their place: at the tokens, for the queries of the explained output.
        outputs: the outputs of the model (n, K).
        uniform: the same with equal weights.
    """

    rankings: dict[str, Scores]
    gradients: Scores
    weights: list[np.ndarray]
    permitted: list[np.ndarray]
    outputs: np.ndarray
    uniform: np.ndarray


def compute_attributions(
    model: InstrumentedModel,
    names: Sequence[str],
    ig_steps: int,
    on_step: Callable[[int], None] = lambda count: None,
    checkpoint: Checkpoint | None = None,
) -> Attributions:
    """Compute the rankings that need attention or gradients, and what the tests of the attention need.

    Args:
        model: the model.
        names: the rankings to compute.
        ig_steps: the number of points at which integrated gradients are evaluated.
        on_step: called with the number of examples that were run.
        checkpoint: stores what gradients gave.
    """
    checkpoint = checkpoint or Checkpoint(None, model.subject)
    count = len(model.subject.sequences)
    rankings: dict[str, list[Any]] = {name: [None] * count for name in names}
    gradients, weights, permitted, outputs, uniform = (list[Any]([None] * count) for _ in range(5))
    for number, batch in enumerate(model.batches()):
        predicted, tensors = model.observe(batch)
        own, may, *values = (to_numpy(tensor) for tensor in tensors[model.key])
        select = _select_output(predicted, model.subject, batch)
        equal = model.predict_uniform(batch)
        compute = functools.partial(_compute_grids, model, batch, tensors, select, names, ig_steps)
        grids = checkpoint.compute(f"gradients {number}", compute)
        fixed = grids.pop(_FIXED)
        on_step((4 + ig_steps * ("integrated_gradients" in names)) * len(batch.indices))
        for row, index in enumerate(batch.indices):
            mask, length = batch.mask[row], len(model.subject.sequences[index])
            outputs[index], uniform[index], gradients[index] = predicted[row], equal[row], fixed[row][mask]
            for name, grid in grids.items():
                rankings[name][index] = grid[row][mask]
            if model.levels is not None:
                weights[index], permitted[index] = own[row], may[row]
                rankings["attention"][index] = _multiply_levels(own[row], mask)
                continue
            rows = slice(0, length if model.key in model.self_attention else None)
            changes = np.zeros(own.shape[2:], bool)
            changes[rows, :length] = True
            if (query := model.get_query(own.shape[2])) is not None:
                changes &= np.arange(own.shape[2])[:, None] == query
            # A model of one length may attend to what is behind an example, which then stays as it is.
            kept = (rows, slice(0, length)) if model.subject.length is None else (slice(None), slice(None))
            weights[index], permitted[index] = own[row][:, *kept], (may[row] & changes)[:, *kept]
            chosen = own[row][:, rows if query is None else slice(query, query + 1), :length]
            rankings["attention"][index] = chosen.mean(axis=(0, 1))
            if values and set(_BY_VALUES) & set(rankings):
                vectors = values[0][row][:, :length]
                projection = get_projection(model.layer, len(vectors), vectors.shape[-1])
                norms, distances = compute_value_scores(chosen, vectors, projection)
                by_name = {"norm_weighted": norms, "value_zeroing": distances}
                for name in by_name.keys() & rankings.keys():
                    rankings[name][index] = by_name[name]
    complete = {name: each for name, each in rankings.items() if all(scores is not None for scores in each)}
    return Attributions(complete, gradients, weights, permitted, np.stack(outputs), np.stack(uniform))


def _compute_grids(
    model: InstrumentedModel,
    batch: Batch,
    tensors: dict[str, Any],
    select: np.ndarray,
    names: Sequence[str],
    ig_steps: int,
) -> dict[str, np.ndarray]:
    """Compute the rankings of a batch that gradients or several layers give, of the shape of its mask.

    `_FIXED` is the gradient with the attention held fixed.
    """
    grids = {_FIXED: model.gate_gradients(batch, select, weights=to_numpy(tensors[model.key][0]))}
    if "gradient_times_input" in names:
        grids["gradient_times_input"] = model.gate_gradients(batch, select)
    if "integrated_gradients" in names:
        # The points and weights of Gauss and Legendre are those of [-1, 1].
        nodes, weights = np.polynomial.legendre.leggauss(ig_steps)
        points = [model.gate_gradients(batch, select, gate=(1 + float(node)) / 2) for node in nodes]
        grids["integrated_gradients"] = np.tensordot(weights / 2, np.stack(points), axes=1)
    if "gradient_times_attention" in names:
        own = to_numpy(tensors[model.key][0])
        product = own * model.weight_gradients(batch, select, own)
        # Of documents: the word's own weight in its sentence.
        is_plain = model.levels is None
        grids["gradient_times_attention"] = (
            product.sum(axis=(1, 2)) if is_plain else product[:, 0, :-1, : batch.mask.shape[-1]]
        )
    if "rollout" in names:
        grids["rollout"] = _roll_out(model, batch, tensors)
    return grids


def list_rankings(model: InstrumentedModel) -> tuple[list[str], dict[str, str]]:
    """Return the names of the rankings that apply to a model, in the order of `TITLES`, and the others with the reason."""
    reasons = {}
    if len(model.self_attention) < 2 and (not model.self_attention or model.key in model.self_attention):
        reasons["rollout"] = "there is no other attention over the tokens before the one that is explained"
    if model.levels is not None:
        reasons |= dict.fromkeys(
            _BY_VALUES, "the attention of documents has two levels, whose values are not of one token"
        )
    elif not model.overridden.get_attention(model.key).has_values:
        reasons |= dict.fromkeys(_BY_VALUES, "of the attention only the weights were seen, not the values")
    return [name for name in TITLES if name != "random" and name not in reasons], reasons


def remove_tokens(model: InstrumentedModel, names: Sequence[str]) -> dict[str, Scores]:
    """Compute the rankings that remove tokens: by how much the probability of the predicted class falls, or a value moves."""
    subject = model.subject
    settings: dict[str, Any] = {
        "perturbation": subject.perturbation,
        "output": subject.output,
        "signed": subject.output == "probabilities",
        "labels": subject.labels,
    }
    widths = {"occlusion": OCCLUSION_WIDTH, "leave_one_out": 1}
    return {
        name: evaluate.leave_one_out(subject.predict, subject.sequences, width=width, **settings)
        for name, width in widths.items()
        if name in names
    }


def compute_value_scores(
    weights: np.ndarray, values: np.ndarray, projection: tuple[np.ndarray, np.ndarray] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    r"""Compute norm-weighted attention and value zeroing of one example, from what an attention computes its output from.

    With $c_{ij} = \sum_n a^n_{ij} v^n_j W^n$ the part of key $j$ in the output $o_i = \sum_j c_{ij} + b$ of query $i$:

    $$\text{norm}_j = \frac{1}{T} \sum_i \lVert c_{ij} \rVert, \qquad
    \text{zeroing}_j = \frac{1}{T} \sum_i \big(1 - \cos(o_i,\; o_i - c_{ij})\big)$$

    Args:
        weights: $a$, (N, T, S).
        values: $v$, (N, S, V).
        projection: the kernel $W$ (N, V, E) and the bias $b$ (E,) that merge the heads; without one they are concatenated.

    Returns:
        Both scores (S,).

    References:
        Kobayashi et al. 2020, arXiv:2004.10102; Mohebbi et al. 2023, arXiv:2301.12971. They count in the residual connection and
        the blocks that follow, which cannot be told in a model of any kind.
    """
    weights, values = np.asarray(weights, np.float64), np.asarray(values, np.float64)
    kernel = None if projection is None else np.asarray(projection[0], np.float64)
    projected = values if kernel is None else np.einsum("nsv,nve->nse", values, kernel)
    norms, distances = np.zeros(weights.shape[-1]), np.zeros(weights.shape[-1])
    for start in range(0, weights.shape[1], _QUERIES_AT_ONCE):
        rows = weights[:, start : start + _QUERIES_AT_ONCE]
        if kernel is None:
            parts = np.einsum("nts,nsv->tsnv", rows, projected).reshape(rows.shape[1], rows.shape[2], -1)
        else:
            parts = np.einsum("nts,nse->tse", rows, projected)
        bias = 0.0 if projection is None else np.asarray(projection[1], np.float64)
        output = parts.sum(1, keepdims=True) + bias
        without = output - parts
        norms += np.linalg.norm(parts, axis=-1).sum(0)
        lengths = np.linalg.norm(output, axis=-1) * np.linalg.norm(without, axis=-1)
        cosine = (output * without).sum(-1) / np.where(lengths > 0, lengths, 1)
        # Nothing is left of an output whose only value is zeroed: the distance is 1.
        distances += (1 - cosine).sum(0)
    return norms / weights.shape[1], distances / weights.shape[1]


def _multiply_levels(weights: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Return the attention to each word of a document (T,): its weight in the sentence times that of the sentence."""
    sentences, words = mask.shape
    return (weights[0, :sentences, :words] * weights[0, sentences, :sentences, None])[mask]


def _roll_out(model: InstrumentedModel, batch: Batch, tensors: dict[str, Any]) -> np.ndarray:
    """Return the attention of the model's readout to each input token, through all self-attention (B, T)."""
    shares = analysis.rollout([to_numpy(tensors[key][0]) for key in model.self_attention])[-1]
    if model.key in model.self_attention:
        queries = batch.mask / batch.mask.sum(1, keepdims=True)
        return np.einsum("bt,bts->bs", queries, shares)
    readout = to_numpy(tensors[model.key][0])
    if (query := model.get_query(readout.shape[2])) is not None:
        readout = readout[:, :, query : query + 1]
    return np.einsum("bt,bts->bs", readout.mean(axis=(1, 2)), shares)


def _select_output(outputs: np.ndarray, subject: Subject, batch: Batch) -> np.ndarray:
    """Return the weight of each output in what is derived (B, K): the explained class, or the mean of values."""
    if subject.output == "values":
        return np.full(outputs.shape, 1 / outputs.shape[1])
    labels = outputs.argmax(1) if subject.labels is None else subject.labels[batch.filled]
    return np.eye(outputs.shape[1])[labels]
