"""Is what a ranking puts first what the prediction rests on? Tokens are taken away and the prediction watched."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from limelight.evaluate.compare import holm
from limelight.evaluate.estimates import bootstrap, check_confidence
from limelight.evaluate.faithfulness_results import MEASURES, RANDOM, AgainstRandom, Curve, Faithfulness
from limelight.evaluate.perturbation import Delete, Replace
from limelight.evaluate.rank_agreement import BATCH, Predict, predicted

_LEAST = 1e-12  # of a probability in a logarithm


def faithfulness(
    predict: Predict,
    examples: Sequence[Any],
    rankings: Mapping[str, Sequence[Any]],
    *,
    removal: Delete | Replace | None = None,
    shares: Sequence[float] = (0.01, 0.05, 0.1, 0.2, 0.5),
    steps: int = 10,
    draws: int = 5,
    confidence: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> Faithfulness:
    r"""Measure whether the tokens that rankings put first are those that the predictions rest on, beside random tokens.

    With y the class predicted for x, p(y | x) its probability, and r the first tokens of a ranking (a share of all,
    rounded up, at least one):

    - comprehensiveness: p(y | x) - p(y | x without r), mean over `shares`; more is better
    - sufficiency: p(y | x) - p(y | r alone), mean over `shares`; less is better
    - log-odds: log(p(y | x without r) / p(y | x)), mean over `shares`; less is better
    - area under deletion: mean of p(y) while tokens leave in their order, by the trapezoid rule; less is better
    - area under insertion: the same while they enter; more is better

    Equal scores are ordered at random. Tokens whose score is NaN in some ranking (special tokens) are never taken away
    and never counted. The random rankings of an example are averaged before anything else.

    Args:
        predict: Takes a list of m examples (T, ...) of any lengths, returns probabilities (m, K), without dropout.
        examples: The N examples, arrays (T, ...), without padding.
        rankings: Name to scores, one array (T,) for each example; the largest is taken away first.
        removal: How tokens are taken away, `Delete()` by default; `Replace(...)` writes padding or the unknown token. The
            results depend on it: report it, and look at both.
        shares: Shares of the tokens for the first three measures.
        steps: Number of steps of the two areas.
        draws: Number of random rankings of each example.
        confidence: Level of the intervals.
        resamples: Number of bootstrap resamples of the examples.
        seed: Seed of everything random.

    Raises:
        ValueError: Scores that do not fit the examples, no example, an example of which no token may be taken away,
            predictions that are no probabilities.

    Example:
        >>> def predict(batch):
        ...     share = np.array([0.2 + 0.6 * np.any(example == 7) for example in batch])
        ...     return np.stack([1 - share, share], axis=1)
        >>> found = faithfulness(predict, [np.array([7, 1, 2, 3])] * 3, {"attention": [[0.7, 0.1, 0.1, 0.1]] * 3})
        >>> round(found.measures["attention"]["comprehensiveness"].value, 3)
        0.6

    DeYoung et al., "ERASER" (arXiv:1911.03429); Samek et al. (arXiv:1509.06321) and Petsiuk et al., "RISE"
    (arXiv:1806.07421) for the areas; Shrikumar et al. (arXiv:1704.02685) for log-odds.
    """
    check_confidence(confidence, resamples)
    removal = removal or Delete()
    arrays = [np.asarray(example) for example in examples]
    scores, free = _scores(arrays, rankings)
    random = np.random.default_rng(seed)
    orders = {name: [[_order(*pair, random)] for pair in zip(each, free, strict=True)] for name, each in scores.items()}
    orders[RANDOM] = [[random.permutation(np.flatnonzero(mask)) for _ in range(draws)] for mask in free]
    chances, levels = _Chances(predict, arrays, removal), np.linspace(0, 1, steps + 1)
    asked = {name: _ask(chances, each, shares, levels) for name, each in orders.items()}
    chances.settle()
    tables = {name: _answers(chances, each) for name, each in asked.items()}
    settings: dict[str, Any] = {"confidence": confidence, "resamples": resamples, "seed": seed}
    return _summed_up(tables, chances, levels, settings)


def _summed_up(
    tables: Mapping[str, Mapping[str, np.ndarray]], chances: "_Chances", levels: np.ndarray, settings: Mapping[str, Any]
) -> Faithfulness:
    single = {name: _summaries(each, chances.base, levels) for name, each in tables.items()}
    return Faithfulness(
        n=len(chances.examples),
        removal=chances.removal.name,
        measures={name: _means(each, settings) for name, each in single.items()},
        against_random=_against(single, settings, np.random.default_rng(settings["seed"] + 1)),
        deletion={name: _curve(levels, each["leaving"], settings) for name, each in tables.items()},
        insertion={name: _curve(levels, each["entering"], settings) for name, each in tables.items()},
    )


class _Chances:
    """Probabilities of the predicted class of changed examples: asked for one by one, then predicted once each."""

    def __init__(self, predict: Predict, examples: list[np.ndarray], removal: Delete | Replace) -> None:
        self.predict, self.examples, self.removal = predict, examples, removal
        full = predicted(predict, examples)
        self.label = full.argmax(1)
        self.base = full[np.arange(len(examples)), self.label]
        self.asked: dict[tuple[int, bytes], int] = {}
        self.values = np.zeros(0)

    def ask(self, place: int, order: np.ndarray, count: int, *, alone: bool) -> int:
        """Ask for an example without the first `count` tokens of an order, or with them alone; return the answer's place."""
        keep = np.ones(len(self.examples[place]), dtype=bool)
        keep[order[count:] if alone else order[:count]] = False
        return self.asked.setdefault((place, keep.tobytes()), len(self.asked))

    def settle(self) -> None:
        """Predict all that was asked, so many at a time that the changed examples do not fill the memory."""
        asked, parts = list(self.asked), []
        for start in range(0, len(asked), BATCH):
            batch = asked[start : start + BATCH]
            changed = [self.removal(self.examples[place], np.frombuffer(keep, dtype=bool)) for place, keep in batch]
            labels = self.label[[place for place, _ in batch]]
            parts.append(predicted(self.predict, changed)[np.arange(len(batch)), labels])
        self.values = np.concatenate(parts)


def _ask(
    chances: _Chances, orders: list[list[np.ndarray]], shares: Sequence[float], levels: np.ndarray
) -> dict[str, np.ndarray]:
    """Ask for all that one ranking needs; return where the answers stand, for each kind (N, draws, shares or levels)."""
    kinds = {
        "without": (shares, False),
        "alone": (shares, True),
        "leaving": (levels, False),
        "entering": (levels, True),
    }
    return {
        kind: np.array(
            [
                [
                    [chances.ask(place, order, _count(at, len(order), kind), alone=alone) for at in points]
                    for order in draws
                ]
                for place, draws in enumerate(orders)
            ]
        )
        for kind, (points, alone) in kinds.items()
    }


def _count(share: float, tokens: int, kind: str) -> int:
    """Return how many tokens a share is: at least one and rounded up for a measure, to the nearest for an area."""
    if kind in ("leaving", "entering"):
        return int(share * tokens + 0.5)
    return max(1, math.ceil(share * tokens - 1e-9))


def _answers(chances: _Chances, asked: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return probabilities (N, shares or levels), means over draws; and logarithms of those without the first tokens."""
    found = {kind: chances.values[places].mean(1) for kind, places in asked.items()}
    found["log_without"] = np.log(np.maximum(chances.values[asked["without"]], _LEAST)).mean(1)
    return found


def _summaries(tables: Mapping[str, np.ndarray], base: np.ndarray, levels: np.ndarray) -> dict[str, np.ndarray]:
    """Return each measure of each example (N,); the tables are (N, shares or levels)."""
    return {
        "comprehensiveness": base - tables["without"].mean(1),
        "sufficiency": base - tables["alone"].mean(1),
        "log_odds": tables["log_without"].mean(1) - np.log(np.maximum(base, _LEAST)),
        "deletion_auc": np.trapezoid(tables["leaving"], levels, axis=1),
        "insertion_auc": np.trapezoid(tables["entering"], levels, axis=1),
    }


def _means(tables: Mapping[str, np.ndarray], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the mean over examples of each table (N,) or (N, K), with intervals."""
    n = len(next(iter(tables.values())))

    def means(weights: np.ndarray) -> dict[str, np.ndarray]:
        return {
            name: (weights @ table) / (weights.sum(1) if table.ndim == 1 else weights.sum(1, keepdims=True))
            for name, table in tables.items()
        }

    return bootstrap(means, n, **settings)


def _curve(shares: np.ndarray, table: np.ndarray, settings: Mapping[str, Any]) -> Curve:
    points = _means({"curve": table}, settings)["curve"]
    # A point without an interval, of one example or of one value in all, has ends that are its value.
    ends = [[point.value if end is None else end for end in (point.low, point.high)] for point in points]
    low, high = np.array(ends).T
    return Curve(shares, np.array([point.value for point in points]), low, high)


def _against(
    summaries: Mapping[str, Mapping[str, np.ndarray]], settings: Mapping[str, Any], random: np.random.Generator
) -> dict[str, dict[str, AgainstRandom]]:
    """Compare each ranking with the random ones, example by example."""
    usual = summaries[RANDOM]
    differences = {
        (name, measure): values - usual[measure]
        for name, each in summaries.items()
        if name != RANDOM
        for measure, values in each.items()
    }
    corrected = holm([_sign_flips(difference, random) for difference in differences.values()])
    found: dict[str, dict[str, AgainstRandom]] = {}
    for ((name, measure), difference), p_value in zip(differences.items(), corrected, strict=True):
        estimate = _means({"difference": difference}, settings)["difference"]
        side = 1 if MEASURES[measure].higher_is_better else -1
        better = side * estimate.value > 0 and p_value < 1 - estimate.confidence
        if estimate.low is not None:
            better = better and (estimate.low > 0 or estimate.high < 0)
        found.setdefault(name, {})[measure] = AgainstRandom(estimate, p_value, bool(better))
    return found


def _sign_flips(difference: np.ndarray, random: np.random.Generator, permutations: int = 4999) -> float:
    """Return the two-sided p value of a paired permutation test of a mean."""
    observed, extreme = abs(float(difference.mean())), 0
    rows = max(1, 4_000_000 // len(difference))
    for start in range(0, permutations, rows):
        signs = random.integers(2, size=(min(rows, permutations - start), len(difference))) * 2 - 1
        extreme += int((np.abs(signs @ difference) / len(difference) >= observed * (1 - 1e-9) - 1e-12).sum())
    return (extreme + 1) / (permutations + 1)


def _scores(
    arrays: list[np.ndarray], rankings: Mapping[str, Sequence[Any]]
) -> tuple[dict[str, list[np.ndarray]], list[np.ndarray]]:
    """Return scores of each ranking, and for each example which tokens may be taken away."""
    if not arrays or not rankings or RANDOM in rankings:
        raise ValueError(
            f'There must be at least one example and one ranking, and none named "{RANDOM}", which is added. '
            f"Received: {len(arrays)} examples, rankings {list(rankings)}."
        )
    scores = {name: [np.asarray(each, dtype=np.float64) for each in ranking] for name, ranking in rankings.items()}
    for name, each in scores.items():
        if len(each) != len(arrays):
            raise ValueError(f"Ranking {name!r} must be of each of {len(arrays)} examples. Received: of {len(each)}.")
        for place, (score, array) in enumerate(zip(each, arrays, strict=True)):
            if score.shape != array.shape[:1] or not score.size:
                raise ValueError(
                    f"Ranking {name!r} must have one score for each token, and at least one. "
                    f"Received: {score.shape} scores for {array.shape[:1]} tokens in example {place}."
                )
    free = [~np.any([np.isnan(each[place]) for each in scores.values()], axis=0) for place in range(len(arrays))]
    empty = [place for place, mask in enumerate(free) if not mask.any()]
    if empty:
        raise ValueError(f"Each example must have a token that may be taken away. Received none in example {empty[0]}.")
    return scores, free


def _order(score: np.ndarray, free: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Return tokens by falling score, equal ones at random."""
    places = random.permutation(np.flatnonzero(free))
    return places[np.argsort(-score[places], kind="stable")]
