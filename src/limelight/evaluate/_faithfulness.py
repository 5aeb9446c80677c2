"""Faithfulness of rankings of tokens: remove tokens in the order of a ranking and measure how the prediction changes."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from limelight._formatting import (
    Metric,
    format_count,
    format_differences,
    format_p_value,
    format_probability_change,
    to_finite,
)
from limelight.evaluate.comparison import holm
from limelight.evaluate.estimates import Estimate, average_groups, bootstrap_means, check_confidence
from limelight.evaluate.perturbation import (
    BATCH_SIZE,
    Delete,
    Predict,
    Replace,
    check_output,
    predict_in_batches,
    predict_values,
)

MEASURES: Mapping[str, Metric] = {
    "comprehensiveness": Metric("comprehensiveness"),
    "sufficiency": Metric("sufficiency", higher_is_better=False),
    "log_odds": Metric("log-odds", higher_is_better=False),
    "deletion_auc": Metric("area under deletion", higher_is_better=False),
    "insertion_auc": Metric("area under insertion"),
}

RANDOM = "random"

_MIN_PROBABILITY = 1e-12  # in a logarithm

# The smallest and largest value of each measure that has any, of a classifier and of a regressor.
_BOUNDS: Mapping[str, Mapping[str, tuple[float, float]]] = {
    "probabilities": {
        "comprehensiveness": (-1.0, 1.0),
        "sufficiency": (-1.0, 1.0),
        "deletion_auc": (0.0, 1.0),
        "insertion_auc": (0.0, 1.0),
    },
    "values": {
        "comprehensiveness": (0.0, math.inf),
        "sufficiency": (0.0, math.inf),
        "deletion_auc": (-math.inf, 0.0),
        "insertion_auc": (-math.inf, 0.0),
    },
}


@dataclass(frozen=True)
class Curve:
    """Mean probability of the predicted class while tokens are deleted (or inserted), with its interval over examples.

    Args:
        shares: Fractions of the tokens that have been deleted (or inserted).
        mean: Mean probability at each fraction.
        low: Lower ends of the intervals.
        high: Upper ends of the intervals.
    """

    shares: np.ndarray
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray

    def to_dict(self) -> dict[str, Any]:
        """Return lists that JSON can hold."""
        return {name: getattr(self, name).tolist() for name in ("shares", "mean", "low", "high")}


@dataclass(frozen=True)
class AgainstRandom:
    """Difference between a ranking and random rankings, or another ranking, on one measure.

    Args:
        difference: Ranking - random, mean over examples with its interval.
        p_value: p value of a paired permutation test, with Holm's correction for all that are compared.
        better: True if the ranking could be shown to be better.
    """

    difference: Estimate
    p_value: float
    better: bool

    def to_dict(self) -> dict[str, Any]:
        """Return values that JSON can hold."""
        return {"difference": self.difference.to_dict(), "p_value": to_finite(self.p_value), "better": self.better}


@dataclass(frozen=True)
class Faithfulness:
    """The result of `faithfulness`.

    Args:
        n: Number of examples, or of groups of them.
        perturbation: How tokens were removed or replaced.
        measures: Ranking name (and "random") to measure name to its `Estimate`.
        against_random: Ranking name to measure name to its `AgainstRandom`.
        deletion: Ranking name (and "random") to the curve while its first tokens are deleted.
        insertion: Ranking name (and "random") to the curve while its first tokens are inserted.
        output: "probabilities", or "values" if the model is a regressor.
        per_example: Ranking name (and "random") to measure name to its values (N,).
    """

    n: int
    perturbation: str
    measures: Mapping[str, Mapping[str, Estimate]]
    against_random: Mapping[str, Mapping[str, AgainstRandom]]
    deletion: Mapping[str, Curve]
    insertion: Mapping[str, Curve]
    output: str = "probabilities"
    per_example: Mapping[str, Mapping[str, np.ndarray]] = field(default_factory=dict, repr=False)

    def compare(
        self,
        first: str,
        seconds: Sequence[str],
        measure: str = "comprehensiveness",
        *,
        resamples: int = 1000,
        seed: int = 0,
    ) -> dict[str, AgainstRandom]:
        """Compare a ranking with others on one measure, paired by example, with Holm's correction for the number of others.

        Args:
            first: Name of the ranking.
            seconds: Names of the others.
            measure: Name of the measure.
            resamples: Number of bootstrap resamples.
            seed: Seed of the bootstrap and of the permutations.
        """
        settings: dict[str, Any] = {"resamples": resamples, "seed": seed}
        pairs = {
            (name, measure): self.per_example[first][measure] - self.per_example[name][measure] for name in seconds
        }
        compared = _compare(pairs, self.output, settings, np.random.default_rng(seed + 1))
        return {name: comparison for (name, _), comparison in compared.items()}

    def sentence(self, ranking: str = "attention", share: float = 0.2) -> str:
        """Describe in words the effect of removing the first tokens of a ranking, next to random tokens, and what it shows.

        Args:
            ranking: Name of the ranking.
            share: The fraction of tokens removed; the nearest one that was measured is used.
        """
        curve, random_curve = self.deletion[ranking], self.deletion[RANDOM]
        step = int(np.abs(curve.shares - share).argmin())
        of_classifier = self.output == "probabilities"
        changes = [float(each.mean[step] - each.mean[0]) for each in (curve, random_curve)]
        against = self.against_random[ranking]["comprehensiveness"]
        difference, claim = against.difference, "beats" if against.better else "could not be shown to beat"
        ends = [] if difference.low is None or difference.high is None else [difference.low, difference.high]
        if of_classifier:
            written = [format_probability_change(each) for each in (*changes, difference.value, *ends)]
        else:
            # A regressor's curve falls by the size of the change, which has no direction.
            amounts = [*(-each for each in changes), difference.value, *ends]
            written = format_differences(amounts, "mae")
            written[:2] = [each.removeprefix("+") for each in written[:2]]
        change, random_change, value, *interval = written
        evidence = f"difference {value}"
        if interval:
            evidence += f", {100 * difference.confidence:g} % CI {' to '.join(interval)}"
        return (
            f"Removing the top {100 * curve.shares[step]:.0f} % of tokens by {ranking} changes the "
            f"{'predicted probability' if of_classifier else 'prediction'} by "
            f"{change}, random tokens by {random_change}. The comprehensiveness of {ranking} {claim} that of random rankings "
            f"({evidence}, {format_p_value(against.p_value)}, {format_count(self.n)} examples, tokens {self.perturbation})."
        )

    def to_dict(self) -> dict[str, Any]:
        """Return values that JSON can hold."""
        return {
            "n": self.n,
            "perturbation": self.perturbation,
            "output": self.output,
            "measures": _to_dicts(self.measures),
            "against_random": _to_dicts(self.against_random),
            "deletion": {name: curve.to_dict() for name, curve in self.deletion.items()},
            "insertion": {name: curve.to_dict() for name, curve in self.insertion.items()},
        }


def _to_dicts(nested: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    return {name: {key: value.to_dict() for key, value in inner.items()} for name, inner in nested.items()}


def faithfulness(
    predict: Predict,
    examples: Sequence[Any],
    rankings: Mapping[str, Sequence[Any]],
    *,
    perturbation: Delete | Replace | None = None,
    output: str = "probabilities",
    shares: Sequence[float] = (0.01, 0.05, 0.1, 0.2, 0.5),
    steps: int = 10,
    draws: int = 5,
    labels: Sequence[int] | np.ndarray | None = None,
    groups: Sequence[Any] | np.ndarray | None = None,
    confidence: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> Faithfulness:
    r"""Measure whether the predictions depend on the first tokens of each ranking, compared with random tokens.

    With y the class predicted for x, p(y | x) its probability, and r the first tokens of a ranking (a fraction of all,
    rounded up, at least one):

    - comprehensiveness: p(y | x) - p(y | x without r), mean over `shares`; higher is better
    - sufficiency: p(y | x) - p(y | r alone), mean over `shares`; lower is better
    - log-odds: log(p(y | x without r) / p(y | x)), mean over `shares`; lower is better
    - area under deletion: mean of p(y) while tokens are deleted in order, by the trapezoidal rule; lower is better
    - area under insertion: mean of p(y) while tokens are inserted in order; higher is better

    A regressor (`output="values"`) has no class: p(y | .) is replaced by minus the distance of the prediction from that of the
    whole example, the absolute difference averaged over outputs. Comprehensiveness is then the change of the prediction
    without r, sufficiency its change with r alone, and there are no log-odds.

    Equal scores are ordered at random. Tokens whose score is NaN in any ranking (special tokens) are never removed and
    never counted. The random rankings of an example are averaged first.

    Args:
        predict: Takes a list of m examples (T, ...) of any lengths, returns probabilities (m, K), or values (m,) or (m, ...),
            without dropout.
        examples: The N examples, arrays (T, ...), without padding.
        rankings: Name to scores, one array (T,) for each example; the token with the largest is removed first.
        perturbation: `Delete()`, the default, removes tokens; `Replace(...)` writes padding or the unknown token in their place.
            The results depend on it: report it, and try both.
        output: "probabilities" for a classifier, "values" for a regressor.
        shares: Fractions of the tokens for the first three measures.
        steps: Number of steps of the two areas.
        draws: Number of random rankings of each example.
        labels: The class y of each example (N,); the predicted one by default.
        groups: The group of each example (N,), such as the text that several belong to. The mean of a group then counts as one
            example: intervals and tests are over groups.
        confidence: Level of the intervals.
        resamples: Number of bootstrap resamples.
        seed: Seed of all random numbers.

    Raises:
        ValueError: The scores do not match the examples, there is no example, no token of an example may be removed, or the
            predictions are not probabilities.

    Example:
        >>> def predict(batch):
        ...     positive = np.array([0.2 + 0.6 * np.any(example == 7) for example in batch])
        ...     return np.stack([1 - positive, positive], axis=1)
        >>> result = faithfulness(predict, [np.array([7, 1, 2, 3])] * 3, {"attention": [[0.7, 0.1, 0.1, 0.1]] * 3})
        >>> round(result.measures["attention"]["comprehensiveness"].value, 3)
        0.6

    DeYoung et al., "ERASER" (arXiv:1911.03429); Samek et al. (arXiv:1509.06321) and Petsiuk et al., "RISE"
    (arXiv:1806.07421) for the areas; Shrikumar et al. (arXiv:1704.02685) for log-odds.
    """
    check_confidence(confidence, resamples)
    check_output(output)
    arrays = [np.asarray(example) for example in examples]
    scores, removable = _check_scores(arrays, rankings)
    orders = _order_tokens(scores, removable, draws, np.random.default_rng(seed))
    cache = _PredictionCache(predict, arrays, perturbation or Delete(), output, labels)
    levels = np.linspace(0, 1, steps + 1)
    probabilities = _predict_perturbed(cache, orders, shares, levels)
    measures = {name: _compute_measures(each, cache, levels) for name, each in probabilities.items()}
    per_example = {
        name: {measure: average_groups(values, groups) for measure, values in each.items()}
        for name, each in measures.items()
    }
    settings: dict[str, Any] = {"confidence": confidence, "resamples": resamples, "seed": seed}
    return Faithfulness(
        n=len(next(iter(per_example[RANDOM].values()))),
        perturbation=cache.perturbation.name,
        measures={
            name: bootstrap_means(each, bounds=_BOUNDS[output], **settings) for name, each in per_example.items()
        },
        against_random=_compare_with_random(per_example, output, settings, np.random.default_rng(seed + 1)),
        **{
            name: _compute_curves(name, probabilities, levels, groups, _BOUNDS[output][f"{name}_auc"], settings)
            for name in ("deletion", "insertion")
        },
        output=output,
        per_example=per_example,
    )


class _PredictionCache:
    """Probabilities of the predicted class of perturbed examples: each is requested first, then all are predicted once.

    For a regressor they are minus the distances of the predictions from those of the whole examples.
    """

    def __init__(
        self,
        predict: Predict,
        examples: list[np.ndarray],
        perturbation: Delete | Replace,
        output: str = "probabilities",
        labels: Sequence[int] | np.ndarray | None = None,
    ) -> None:
        self.predict, self.examples, self.perturbation, self.output = predict, examples, perturbation, output
        self.whole = (predict_in_batches if output == "probabilities" else predict_values)(predict, examples)
        self.labels = self.whole.argmax(1) if labels is None else np.asarray(labels)
        classified = output == "probabilities"
        rows = np.arange(len(examples))
        self.original = self.whole[rows, self.labels] if classified else np.zeros(len(examples))
        self.requests: dict[tuple[int, bytes], int] = {}
        self.values = np.zeros(0)

    def request(self, example: int, order: np.ndarray, count: int, *, keep_only: bool) -> int:
        """Request an example without (or with only) the first `count` tokens of an order; return the index of its value."""
        keep = np.ones(len(self.examples[example]), dtype=bool)
        keep[order[count:] if keep_only else order[:count]] = False
        return self.requests.setdefault((example, keep.tobytes()), len(self.requests))

    def predict_requests(self) -> None:
        """Predict all requests, in batches: all perturbed examples at once may not fit in memory."""
        requests, values = list(self.requests), []
        for start in range(0, len(requests), BATCH_SIZE):
            batch = requests[start : start + BATCH_SIZE]
            perturbed = [
                self.perturbation(self.examples[index], np.frombuffer(keep, dtype=bool)) for index, keep in batch
            ]
            values.append(self._score(perturbed, np.array([index for index, _ in batch])))
        self.values = np.concatenate(values)

    def _score(self, perturbed: list[np.ndarray], indices: np.ndarray) -> np.ndarray:
        """Return the probability of the predicted class, or minus the distance, of perturbed examples (m,)."""
        if self.output == "values":
            return -np.abs(predict_values(self.predict, perturbed) - self.whole[indices]).mean(1)
        return predict_in_batches(self.predict, perturbed)[np.arange(len(perturbed)), self.labels[indices]]


def _predict_perturbed(
    cache: _PredictionCache,
    orders: Mapping[str, list[list[np.ndarray]]],
    shares: Sequence[float],
    levels: np.ndarray,
) -> dict[str, dict[str, np.ndarray]]:
    """Return the probabilities that the measures of each ranking need. All are requested first, and each is predicted once."""
    requests = {name: _request(cache, each, shares, levels) for name, each in orders.items()}
    cache.predict_requests()
    return {name: _mean_over_draws(cache, each) for name, each in requests.items()}


def _request(
    cache: _PredictionCache, orders: list[list[np.ndarray]], shares: Sequence[float], levels: np.ndarray
) -> dict[str, np.ndarray]:
    """Request all predictions of one ranking; return their indices, each (N, draws, shares or levels)."""

    def request(fractions: Any, count: Any, *, keep_only: bool) -> np.ndarray:
        return np.array(
            [
                [
                    [cache.request(example, order, count(f * len(order)), keep_only=keep_only) for f in fractions]
                    for order in draws
                ]
                for example, draws in enumerate(orders)
            ]
        )

    return {
        "without": request(shares, _round_up, keep_only=False),
        "only": request(shares, _round_up, keep_only=True),
        "deletion": request(levels, _round_half_up, keep_only=False),
        "insertion": request(levels, _round_half_up, keep_only=True),
    }


def _round_up(tokens: float) -> int:
    return max(1, math.ceil(tokens - 1e-9))


def _round_half_up(tokens: float) -> int:
    return int(tokens + 0.5)


def _mean_over_draws(cache: _PredictionCache, requests: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the requested probabilities as means over draws (N, shares or levels), and the mean logarithms."""
    probabilities = {name: cache.values[indices].mean(1) for name, indices in requests.items()}
    logs = np.log(np.maximum(cache.values[requests["without"]], _MIN_PROBABILITY))
    return {**probabilities, "log_without": logs.mean(1)}


def _compute_measures(
    probabilities: Mapping[str, np.ndarray], cache: _PredictionCache, levels: np.ndarray
) -> dict[str, np.ndarray]:
    """Return each measure of each example (N,) from probabilities (N, shares or levels)."""
    measures = {
        "comprehensiveness": cache.original - probabilities["without"].mean(1),
        "sufficiency": cache.original - probabilities["only"].mean(1),
        "log_odds": probabilities["log_without"].mean(1) - np.log(np.maximum(cache.original, _MIN_PROBABILITY)),
        "deletion_auc": np.trapezoid(probabilities["deletion"], levels, axis=1),
        "insertion_auc": np.trapezoid(probabilities["insertion"], levels, axis=1),
    }
    if cache.output == "values":
        del measures["log_odds"]
    return measures


def _compute_curves(
    direction: str,
    probabilities: Mapping[str, Mapping[str, np.ndarray]],
    levels: np.ndarray,
    groups: Sequence[Any] | np.ndarray | None,
    bounds: tuple[float, float],
    settings: Mapping[str, Any],
) -> dict[str, Curve]:
    """Return the curve of "deletion" or "insertion" of each ranking."""
    return {
        name: _curve(levels, average_groups(each[direction], groups), bounds, settings)
        for name, each in probabilities.items()
    }


def _curve(
    levels: np.ndarray, probabilities: np.ndarray, bounds: tuple[float, float], settings: Mapping[str, Any]
) -> Curve:
    points = bootstrap_means({"curve": probabilities}, bounds={"curve": bounds}, **settings)["curve"]
    # A point without an interval (one example, or equal distances) has an interval of length 0.
    intervals = [[point.value if end is None else end for end in (point.low, point.high)] for point in points]
    low, high = np.array(intervals).T
    return Curve(levels, np.array([point.value for point in points]), low, high)


def _compare_with_random(
    per_example: Mapping[str, Mapping[str, np.ndarray]],
    output: str,
    settings: Mapping[str, Any],
    rng: np.random.Generator,
) -> dict[str, dict[str, AgainstRandom]]:
    """Compare each ranking with the random rankings, paired by example."""
    differences = {
        (name, measure): values - per_example[RANDOM][measure]
        for name, each in per_example.items()
        if name != RANDOM
        for measure, values in each.items()
    }
    comparisons: dict[str, dict[str, AgainstRandom]] = {}
    for (name, measure), comparison in _compare(differences, output, settings, rng).items():
        comparisons.setdefault(name, {})[measure] = comparison
    return comparisons


def _compare(
    differences: Mapping[tuple[str, str], np.ndarray],
    output: str,
    settings: Mapping[str, Any],
    rng: np.random.Generator,
) -> dict[tuple[str, str], AgainstRandom]:
    """Test whether the mean of each array of differences (N,) is 0, by ranking and measure."""
    p_values = holm([_sign_flip_test(difference, rng) for difference in differences.values()])
    comparisons = {}
    for ((name, measure), difference), p_value in zip(differences.items(), p_values, strict=True):
        # Two probabilities differ by at most 1, and so do two measures of one example.
        is_bounded = output == "probabilities" and measure in _BOUNDS[output]
        bounds = {"difference": (-1.0, 1.0)} if is_bounded else None
        estimate = bootstrap_means({"difference": difference}, bounds=bounds, **settings)["difference"]
        direction = 1 if MEASURES[measure].higher_is_better else -1
        better = direction * estimate.value > 0 and p_value < 1 - estimate.confidence
        if estimate.low is not None:
            better = better and (estimate.low > 0 or estimate.high < 0)
        comparisons[name, measure] = AgainstRandom(estimate, p_value, bool(better))
    return comparisons


def _sign_flip_test(differences: np.ndarray, rng: np.random.Generator, permutations: int = 4999) -> float:
    """Return the two-sided p value of a paired permutation test of a mean."""
    observed, extreme = abs(float(differences.mean())), 0
    rows = max(1, 4_000_000 // len(differences))
    for start in range(0, permutations, rows):
        signs = rng.integers(2, size=(min(rows, permutations - start), len(differences))) * 2 - 1
        extreme += int((np.abs(signs @ differences) / len(differences) >= observed * (1 - 1e-9) - 1e-12).sum())
    return (extreme + 1) / (permutations + 1)


def _check_scores(
    arrays: list[np.ndarray], rankings: Mapping[str, Sequence[Any]]
) -> tuple[dict[str, list[np.ndarray]], list[np.ndarray]]:
    """Return the scores of each ranking, and for each example a mask of the tokens that may be removed."""
    if not arrays or not rankings or RANDOM in rankings:
        raise ValueError(
            f'There must be at least one example and one ranking, and none named "{RANDOM}", which is added. '
            f"Received: {len(arrays)} examples, rankings {list(rankings)}."
        )
    scores = {name: [np.asarray(each, dtype=np.float64) for each in ranking] for name, ranking in rankings.items()}
    for name, each in scores.items():
        if len(each) != len(arrays):
            raise ValueError(f"Ranking {name!r} must rank each of {len(arrays)} examples. Received: {len(each)}.")
        for index, (score, array) in enumerate(zip(each, arrays, strict=True)):
            if score.shape != array.shape[:1] or not score.size:
                raise ValueError(
                    f"Ranking {name!r} must have one score for each token, and at least one. "
                    f"Received: {score.shape} scores for {array.shape[:1]} tokens in example {index}."
                )
    removable = [~np.any([np.isnan(each[index]) for each in scores.values()], axis=0) for index in range(len(arrays))]
    empty = [index for index, mask in enumerate(removable) if not mask.any()]
    if empty:
        raise ValueError(f"Each example must have a token that may be removed. Received: none in example {empty[0]}.")
    return scores, removable


def _order_tokens(
    scores: Mapping[str, list[np.ndarray]], removable: list[np.ndarray], draws: int, rng: np.random.Generator
) -> dict[str, list[list[np.ndarray]]]:
    """Return the orders in which tokens are removed, by ranking and example: one, or `draws` for random rankings."""
    orders = {
        name: [[_order_by_score(score, mask, rng)] for score, mask in zip(each, removable, strict=True)]
        for name, each in scores.items()
    }
    orders[RANDOM] = [[rng.permutation(np.flatnonzero(mask)) for _ in range(draws)] for mask in removable]
    return orders


def _order_by_score(score: np.ndarray, removable: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return the indices of tokens by descending score, equal scores at random."""
    indices = rng.permutation(np.flatnonzero(removable))
    return indices[np.argsort(-score[indices], kind="stable")]
