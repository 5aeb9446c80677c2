"""Agreement of rankings with tokens that people have marked as the reason."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from limelight._optional import import_optional
from limelight.evaluate.estimates import Estimate, average_groups, bootstrap_means, check_confidence

MEASURES = ("auprc", "token_f1", "iou_f1")
_MIN_IOU = 0.5


def plausibility(
    rankings: Mapping[str, Sequence[Any]],
    marks: Sequence[Any],
    *,
    groups: Sequence[Any] | np.ndarray | None = None,
    draws: int = 10,
    confidence: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> dict[str, dict[str, Estimate]]:
    r"""Compare rankings with the tokens that people marked as the reason, by the measures of ERASER.

    - "auprc": area under the precision-recall curve of the scores, as scikit-learn's `average_precision_score` has it
    - "token_f1": F1 of the first tokens of the ranking; as many are taken, in proportion to the length, as people mark on average
    - "iou_f1": F1 of the spans of these tokens; a span counts as found if a marked one covers it with an intersection over
      union of at least 0.5

    Each is computed for each example, and averaged over those that have a mark. Tokens whose score is NaN (special tokens) are
    left out, with their marks. A plausible ranking need not be a faithful one. Beside the rankings stands "random", the mean of
    random orders of the tokens of the first one.

    Args:
        rankings: Name to scores, one array (T,) for each example.
        marks: For each example bool (T,), True at tokens that people marked.
        groups: The group of each example, whose mean then counts as one.
        draws: Number of random orders of each example; 0 leaves "random" out.
        confidence: Level of the intervals.
        resamples: Number of bootstrap resamples.
        seed: Seed of the bootstrap, and of the order of equal scores.

    Returns:
        Ranking name to measure name to its `Estimate`.

    Raises:
        ValueError: Scores and marks do not match, or no example has a mark.

    Example:
        >>> result = plausibility({"attention": [[0.1, 0.7, 0.2]]}, [[False, True, False]])
        >>> {name: estimate.value for name, estimate in result["attention"].items()}
        {'auprc': 1.0, 'token_f1': 1.0, 'iou_f1': 1.0}
        >>> list(result)
        ['attention', 'random']

    References:
        DeYoung et al. 2020, "ERASER", arXiv:1911.03429.
    """
    check_confidence(confidence, resamples)
    gold = [np.asarray(each, bool) for each in marks]
    scores = {name: [np.asarray(each, np.float64) for each in ranking] for name, ranking in rankings.items()}
    _check_shapes(scores, gold)
    settings: Any = {"confidence": confidence, "resamples": resamples, "seed": seed}
    random = np.random.default_rng(seed)
    orders = {name: [ranking] for name, ranking in scores.items()}
    if draws and scores and "random" not in scores:
        shuffling = np.random.default_rng((seed, 1))
        first = next(iter(scores.values()))
        orders["random"] = [[_draw_scores(each, shuffling) for each in first] for _ in range(draws)]
    results = {}
    for name, repeated in orders.items():
        defined = [~np.isnan(score) for score in repeated[0]]
        marked = [index for index, each in enumerate(gold) if each[defined[index]].any()]
        if not marked:
            raise ValueError("`marks` must mark a token of at least one example. Received: none.")
        share = float(np.mean([gold[index][defined[index]].mean() for index in marked]))
        rows = [
            [_measure(ranking[index][defined[index]], gold[index][defined[index]], share, random) for index in marked]
            for ranking in repeated
        ]
        values = average_groups(np.mean(rows, axis=0), None if groups is None else [groups[index] for index in marked])
        columns: dict[str, np.ndarray] = dict(zip(MEASURES, values.T, strict=True))
        results[name] = bootstrap_means(columns, bounds=dict.fromkeys(MEASURES, (0.0, 1.0)), **settings)
    return results


def _check_shapes(scores: Mapping[str, list[np.ndarray]], gold: list[np.ndarray]) -> None:
    for name, ranking in scores.items():
        shapes = [
            (score.shape, each.shape) for score, each in zip(ranking, gold, strict=False) if score.shape != each.shape
        ]
        if len(ranking) != len(gold) or shapes:
            received = (
                f"{len(ranking)} and {len(gold)} examples"
                if not shapes
                else f"shapes {shapes[0][0]} and {shapes[0][1]}"
            )
            raise ValueError(f"Ranking {name!r} must have a score for each token of `marks`. Received: {received}.")


def _draw_scores(score: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Return a random order as scores, NaN where the given ones are."""
    return np.where(np.isnan(score), np.nan, random.permutation(len(score)))


def _measure(score: np.ndarray, truth: np.ndarray, share: float, random: np.random.Generator) -> list[float]:
    """Return the measures of an example, in the order of `MEASURES`."""
    average_precision_score: Any = import_optional("sklearn.metrics").average_precision_score
    count = max(1, math.ceil(share * len(truth) - 1e-9))
    # Equal scores in random order: the first tokens of a text are no better than others.
    shuffled = random.permutation(len(score))
    chosen = np.zeros(len(score), bool)
    chosen[shuffled[np.argsort(-score[shuffled], kind="stable")[:count]]] = True
    overlap = float((chosen & truth).sum())
    return [
        float(average_precision_score(truth, score)),
        2 * overlap / (count + truth.sum()),
        _span_f1(chosen, truth),
    ]


def _span_f1(chosen: np.ndarray, truth: np.ndarray) -> float:
    """Return the F1 of spans that overlap by at least half of their union."""
    spans, gold = _find_spans(chosen), _find_spans(truth)
    found = sum(any(_overlap(span, each) >= _MIN_IOU for each in gold) for span in spans)
    return 2 * found / (len(spans) + len(gold))


def _find_spans(mask: np.ndarray) -> list[tuple[int, int]]:
    edges = np.flatnonzero(np.diff(np.concatenate([[False], mask, [False]]).astype(int)))
    return [(int(start), int(end)) for start, end in edges.reshape(-1, 2)]


def _overlap(first: tuple[int, int], second: tuple[int, int]) -> float:
    """Return the intersection of two spans over their union."""
    shared = min(first[1], second[1]) - max(first[0], second[0])
    return max(shared, 0) / (first[1] - first[0] + second[1] - second[0] - max(shared, 0))
