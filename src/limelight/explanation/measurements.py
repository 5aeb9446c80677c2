"""The tests of an attention on its examples, and the estimates over examples that they give."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from limelight import evaluate
from limelight._progress import Progress
from limelight.evaluate import Estimate, Faithfulness
from limelight.evaluate.estimates import average_groups, bootstrap_means, wilson
from limelight.evaluate.perturbation import output_distance
from limelight.evaluate.rank_agreement import kendall_taus
from limelight.explanation import forecasts
from limelight.explanation._explanation import Explanation
from limelight.explanation.alternatives import find_adversarial, permute_attention
from limelight.explanation.checkpoint import Checkpoint
from limelight.explanation.instrumented import InstrumentedModel
from limelight.explanation.rankings import Attributions, Scores, compute_attributions, remove_tokens
from limelight.explanation.subjects import Subject
from limelight.explanation.verdict import BY_GRADIENTS

_SHARES, _STEPS, _DRAWS = (0.01, 0.05, 0.1, 0.2, 0.5), 10, 5
# Attention counts as quite different from another if it is at least half as far away as possible.
_DIFFERENT = 0.5 * math.log(2)


@dataclasses.dataclass(frozen=True)
class Settings:
    """The rankings to compare and the extent of each test: see `explain`."""

    rankings: Sequence[str]
    permutations: int
    restarts: int
    iterations: int
    ig_steps: int
    resamples: int
    seed: int

    @property
    def statistics(self) -> dict[str, Any]:
        """The arguments of bootstrap intervals."""
        return {"resamples": self.resamples, "seed": self.seed}

    def describe(self, layer: str) -> dict[str, Any]:
        """Return everything that the numbers of single examples depend on, for the attention of this key."""
        return {"layer": layer, **{name: each for name, each in vars(self).items() if name != "resamples"}}


class Measurements(NamedTuple):
    """The results of all tests of the examples, most of them without intervals.

    Args:
        attributions: the outputs, the attention and what gradients give.
        rankings: the scores (T,) of each example, by the name of the ranking.
        leave_one_out: how far the prediction moves without each token (T,), of each example.
        faithfulness: how the prediction changes while tokens are removed in the order of each ranking.
        scale: the unit of distances: 1 for probabilities, the spread of the predictions for values.
        permutation: the median distance that permuted weights move the prediction of each example (n,).
        adversarial: as in `Explanation`.
    """

    attributions: Attributions
    rankings: dict[str, Scores]
    leave_one_out: list[np.ndarray]
    faithfulness: Faithfulness
    scale: float
    permutation: np.ndarray
    adversarial: dict[str, Estimate] | None


def estimate_cost(lengths: Sequence[int], settings: Settings) -> tuple[int, int]:
    """Return the largest number of forward and backward passes of one example."""
    removals = 2 * len(_SHARES) + 2 * (_STEPS + 1)
    forward = 3 + removals * (len(settings.rankings) + _DRAWS) + settings.permutations
    integrated = settings.ig_steps * ("integrated_gradients" in settings.rankings)
    backward = 3 + integrated + settings.restarts * settings.iterations
    return len(lengths) * forward + 4 * sum(lengths), len(lengths) * backward


def measure(model: InstrumentedModel, settings: Settings, progress: Progress, checkpoint: Checkpoint) -> Measurements:
    """Compute the rankings, remove tokens in their order, and replace the attention."""
    subject = model.subject
    progress.start_run("gradients", 0)
    attributions = compute_attributions(model, settings.rankings, settings.ig_steps, progress.step, checkpoint)

    def on_predict(count: int) -> None:
        checkpoint.write_if_due()
        progress.step(count)

    subject.on_predict = on_predict
    rankings, leave_one_out = _leave_tokens_out(model, attributions, settings, progress)
    progress.start_run("removal of tokens", 0)
    faithfulness = _measure_faithfulness(subject, rankings, settings)
    spread = float(attributions.outputs.std(0).mean())
    scale = 1.0 if subject.output == "probabilities" else spread or 1.0
    progress.start_run("permuted weights", 0)
    permutation = permute_attention(
        model, attributions, settings.permutations, scale, settings.seed, progress.step, checkpoint
    )
    adversarial = None
    if settings.restarts:
        progress.start_run("other attention", 0)
        adversarial = _search_adversarial(model, attributions, scale, settings, progress, checkpoint)
    return Measurements(attributions, rankings, leave_one_out, faithfulness, scale, permutation, adversarial)


def _leave_tokens_out(
    model: InstrumentedModel, attributions: Attributions, settings: Settings, progress: Progress
) -> tuple[dict[str, Scores], list[np.ndarray]]:
    """Return all rankings in their order, and how far the prediction moves without each token."""
    subject, names = model.subject, settings.rankings
    progress.start_run("leave-one-out", 0)
    rankings = {**attributions.rankings, **remove_tokens(model, names)}
    distances = evaluate.leave_one_out(
        subject.predict, subject.sequences, perturbation=subject.perturbation, output=subject.output
    )
    return {name: subject.hide_special(rankings[name]) for name in names if name in rankings}, distances


def _measure_faithfulness(subject: Subject, rankings: Mapping[str, Scores], settings: Settings) -> Faithfulness:
    return evaluate.faithfulness(
        subject.predict,
        subject.sequences,
        rankings,
        perturbation=subject.perturbation,
        output=subject.output,
        shares=_SHARES,
        steps=_STEPS,
        draws=_DRAWS,
        labels=subject.labels,
        groups=subject.groups,
        **settings.statistics,
    )


def _search_adversarial(
    model: InstrumentedModel,
    attributions: Attributions,
    scale: float,
    settings: Settings,
    progress: Progress,
    checkpoint: Checkpoint,
) -> dict[str, Estimate]:
    """Return the mean divergence of the most different attention, and the share of outputs for which it is large."""
    adversarial = find_adversarial(
        model,
        attributions,
        restarts=settings.restarts,
        iterations=settings.iterations,
        scale=scale,
        seed=settings.seed,
        on_step=progress.step,
        checkpoint=checkpoint,
    )
    divergence, statistics = adversarial.divergence, settings.statistics
    return {
        "divergence": _mean(divergence, (0.0, math.log(2)), model.subject, statistics),
        "share": _share(divergence >= _DIFFERENT, model.subject),
    }


def summarize(model: InstrumentedModel, measured: Measurements, targets: Any, settings: Settings) -> Explanation:
    """Return the estimates over examples, without the verdict.

    Args:
        model: the model.
        measured: what `measure` returned.
        targets: the targets of the examples, if there are any.
        settings: those of `measure`.
    """
    subject, attributions, statistics = model.subject, measured.attributions, settings.statistics
    scores = _pair_scores(measured)
    has_classes = subject.output == "probabilities" and subject.labels is None
    return Explanation(
        model=subject.name,
        n=measured.faithfulness.n,
        num_outputs=len(subject.sequences),
        tokens=float(np.mean([(~subject.find_special(sequence)).sum() for sequence in subject.sequences])),
        layer=model.title,
        perturbation=subject.perturbation.name,
        output=subject.output,
        explained=subject.explained,
        scale=measured.scale,
        faithfulness=measured.faithfulness,
        rival=_compare_with_gradients(measured.faithfulness, statistics),
        agreement={
            name: evaluate.agreement(*pair, groups=subject.groups, **statistics) for name, pair in scores.items()
        },
        agreement_by_class=_agree_by_class(subject, attributions, scores, statistics) if has_classes else {},
        permutation=_mean(measured.permutation, _bound_distances(subject), subject, statistics),
        adversarial=measured.adversarial,
        uniform=_compare_uniform(subject, attributions, targets, measured.scale, statistics),
        variables={
            name: _mean(moved / measured.scale, _bound_distances(subject), subject, statistics)
            for name, moved in forecasts.measure_variables(subject).items()
        },
        plausibility={},
        without_tau={name: int(np.isnan(kendall_taus(*pair)).sum()) for name, pair in scores.items()},
        rankings=measured.rankings,
        words=subject.tokens,
        outputs=subject.outputs,
    )


def _pair_scores(measured: Measurements) -> dict[str, tuple[Scores, list[np.ndarray]]]:
    """Return the scores of attention beside the absolute values of gradients and of leave-one-out."""
    others = {"gradients": measured.attributions.gradients, "leave_one_out": measured.leave_one_out}
    attention = measured.rankings["attention"]
    return {name: (attention, [np.abs(each) for each in other]) for name, other in others.items()}


def _agree_by_class(
    subject: Subject, attributions: Attributions, scores: Mapping[str, Any], statistics: Mapping[str, Any]
) -> dict[str, dict[str, Estimate]]:
    """Return the agreement of the examples of each predicted class."""
    predicted = attributions.outputs.argmax(1)
    results = {}
    for label in np.unique(predicted):
        indices = np.flatnonzero(predicted == label)
        results[subject.classes[label] if subject.classes else str(label)] = {
            name: evaluate.agreement([first[i] for i in indices], [second[i] for i in indices], **statistics)
            for name, (first, second) in scores.items()
        }
    return results


def _compare_with_gradients(faithfulness: Faithfulness, statistics: Mapping[str, Any]) -> dict[str, Any] | None:
    """Compare the comprehensiveness of attention with that of the best ranking by gradients, paired by example."""
    candidates = [name for name in BY_GRADIENTS if name in faithfulness.measures]
    if not candidates:
        return None
    best = max(candidates, key=lambda name: faithfulness.measures[name]["comprehensiveness"].value)
    against = faithfulness.compare("attention", candidates, **statistics)[best]
    difference = against.difference
    return {
        "ranking": best,
        "value": difference.value,
        "low": difference.low,
        "high": difference.high,
        "p_value": against.p_value,
    }


def _compare_uniform(
    subject: Subject, attributions: Attributions, targets: Any, scale: float, statistics: Mapping[str, Any]
) -> dict[str, Any]:
    """Return what equal weights do to the predictions, and with targets what they cost."""
    before, after = attributions.outputs, attributions.uniform
    moved = output_distance(after, before, subject.output) / scale
    result: dict[str, Any] = {"moved": _mean(moved, _bound_distances(subject), subject, statistics)}
    if subject.labels is not None:
        return result
    if subject.output == "probabilities":
        result["changed"] = _share(before.argmax(1) != after.argmax(1), subject)
    if subject.targets is not None:
        # The mean of an example is the mean absolute difference of its errors from 0.
        first, second = (
            average_groups(np.abs(each - subject.targets).mean(1), subject.groups) for each in (before, after)
        )
        cost = _compute_cost(np.zeros(len(first)), first, second, "mae", statistics)
        return {**result, **cost, "is_scaled": True}
    if targets is None:
        return result
    truth = subject.encode(targets)
    if subject.output == "probabilities":
        return {**result, **_compute_cost(truth, before, after, "accuracy", statistics)}
    return {**result, **_compute_cost(truth, subject.decode(before), subject.decode(after), "mae", statistics)}


def _compute_cost(
    truth: np.ndarray, before: np.ndarray, after: np.ndarray, metric: str, statistics: Mapping[str, Any]
) -> dict[str, Any]:
    """Return by how much equal weights are worse; negative if they are better."""
    names = ("the weights", "equal weights")
    comparison = evaluate.paired(truth, before, after, metric=metric, names=names, **statistics)
    difference = comparison.difference
    if metric != "accuracy":
        low, high = (None if end is None else -end for end in (difference.high, difference.low))
        difference = dataclasses.replace(difference, value=-difference.value, low=low, high=high)
    return {"metric": metric, "cost": difference, "p_value": comparison.p_value}


def _bound_distances(subject: Subject) -> tuple[float, float]:
    """Return the smallest and largest distance of two outputs."""
    return 0.0, 1.0 if subject.output == "probabilities" else math.inf


def _mean(values: np.ndarray, bounds: tuple[float, float], subject: Subject, statistics: Mapping[str, Any]) -> Estimate:
    """Return the mean over examples with its interval, which stays within the bounds of the values."""
    means = {"mean": average_groups(values, subject.groups)}
    return bootstrap_means(means, bounds={"mean": bounds}, **statistics)["mean"]


def _share(chosen: np.ndarray, subject: Subject) -> Estimate:
    """Return the share of the outputs that are chosen, with Wilson's interval; of groups their mean share, each counted once."""
    shares = average_groups(chosen.astype(np.float64), subject.groups)
    estimate = wilson(float(shares.sum()), len(shares))
    return estimate if subject.groups is None else dataclasses.replace(estimate, method="Wilson, with groups as trials")
