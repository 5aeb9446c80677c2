"""Metrics over weighted examples, for all rows of weights at once: what the bootstrap and the permutation test call."""

from collections.abc import Callable

import numpy as np


def ratio(top: np.ndarray, bottom: np.ndarray, otherwise: float = np.nan) -> np.ndarray:
    """Return top / bottom, and `otherwise` where bottom is 0."""
    out = np.full(np.broadcast_shapes(top.shape, bottom.shape), otherwise)
    return np.divide(top, bottom, out=out, where=bottom > 0)


def mean_known(values: np.ndarray) -> np.ndarray:
    """Return the mean over the last axis of what is not NaN, and NaN where nothing is known."""
    known = np.isfinite(values)
    return ratio(np.where(known, values, 0.0).sum(-1), known.sum(-1).astype(np.float64))


def mean(losses: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Return the weighted mean of a value for each example."""
    return lambda weights: weights @ losses / weights.sum(1)


def roc_auc(positive: np.ndarray, scores: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Return the weighted area under the ROC curve: the chance that a positive outranks a negative, ties half.

    The weights are (n, R): sums along examples are then sums of rows, which is several times as fast.
    """
    negatives = np.flatnonzero(~positive)
    negatives = negatives[np.argsort(scores[negatives], kind="stable")]
    positives = np.flatnonzero(positive)
    before = np.searchsorted(scores[negatives], scores[positives], side="left")
    through = np.searchsorted(scores[negatives], scores[positives], side="right")

    def area(columns: np.ndarray) -> np.ndarray:
        up = columns[positives]
        below = np.zeros((len(negatives) + 1, columns.shape[1]))
        np.cumsum(columns[negatives], axis=0, out=below[1:])
        wins = (up * (below[before] + below[through])).sum(0) / 2
        return ratio(wins, up.sum(0) * below[-1])

    return area


def average_precision(positive: np.ndarray, scores: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Return the weighted average precision: the sum over thresholds of the gain in recall times the precision.

    The weights are (n, R), as for `roc_auc`.
    """
    order = np.argsort(-scores, kind="stable")
    ends = np.flatnonzero(np.append(np.diff(scores[order]) != 0, True))
    hits = np.flatnonzero(positive[order])
    through = np.searchsorted(hits, ends, side="right")
    gains = np.diff(through, prepend=0) > 0  # only thresholds that pass a positive add to the sum
    ends, through = ends[gains], through[gains]

    def area(columns: np.ndarray) -> np.ndarray:
        ranked = columns[order]
        found = np.cumsum(ranked[hits], axis=0)[through - 1]
        if not len(found):
            return np.full(columns.shape[1], np.nan)
        precision = ratio(found, np.cumsum(ranked, axis=0)[ends], 0.0)
        gained = np.diff(found, axis=0, prepend=0.0)
        known = ranked.sum(0) > found[-1]  # without a negative there is nothing to rank
        return np.where(known, ratio((gained * precision).sum(0), found[-1]), np.nan)

    return area


def one_against_rest(
    metric: Callable[[np.ndarray, np.ndarray], Callable], truth: np.ndarray, probabilities: np.ndarray
) -> Callable[[np.ndarray], np.ndarray]:
    """Return a ranking metric: of the second class where there are two, else the mean over classes that occur."""
    count = probabilities.shape[1]
    kept = [1] if count == 2 else [k for k in range(count) if np.any(truth == k)]
    areas = [metric(truth == k, probabilities[:, k]) for k in kept]

    def mean_area(weights: np.ndarray) -> np.ndarray:
        columns = np.ascontiguousarray(weights.T)
        return mean_known(np.stack([area(columns) for area in areas], axis=1))

    return mean_area


def label_scores(truth: np.ndarray, predicted: np.ndarray, count: int) -> Callable[[np.ndarray], dict[str, np.ndarray]]:
    """Return accuracy and precision, recall and F1: per class, macro (classes in the truth) and weighted (by support)."""
    classes = np.arange(count)
    is_true = (truth[:, None] == classes).astype(np.float64)
    is_predicted = (predicted[:, None] == classes).astype(np.float64)

    def scores(weights: np.ndarray) -> dict[str, np.ndarray]:
        hits, support, named = weights @ (is_true * is_predicted), weights @ is_true, weights @ is_predicted
        occurs = support > 0
        found = {
            "precision": ratio(hits, named, 0.0),
            "recall": ratio(hits, support),
            "f1": ratio(2 * hits, support + named, 0.0),
        }
        out = {"accuracy": hits.sum(1) / weights.sum(1)}
        for name, value in found.items():
            known = np.where(occurs, value, np.nan)
            out[name] = np.where(occurs | (named > 0), value, np.nan)
            out[f"{name}_macro"] = mean_known(known)
            out[f"{name}_weighted"] = (np.where(occurs, value, 0.0) * support).sum(1) / support.sum(1)
        return out

    return scores


def equal_mass_bins(confidence: np.ndarray, bins: int = 15) -> np.ndarray:
    """Return the bin of each example: up to `bins` bins of as near the same number of examples as can be.

    Examples of equal confidence never part: a bin ends only where the confidence changes.
    """
    order = np.argsort(confidence, kind="stable")
    bin_of_rank = np.arange(len(order)) * bins // len(order)
    _, group = np.unique(confidence[order], return_inverse=True)
    first = np.searchsorted(group, group, side="left")
    member = np.empty(len(order), dtype=np.int64)
    member[order] = np.unique(bin_of_rank[first], return_inverse=True)[1]
    return member


def calibration_error(
    correct: np.ndarray, confidence: np.ndarray, bins: int = 15
) -> Callable[[np.ndarray], np.ndarray]:
    """Return the expected calibration error: sum over bins of their share times |accuracy - confidence|."""
    member = equal_mass_bins(confidence, bins)
    gaps = np.zeros((len(member), member.max() + 1))
    gaps[np.arange(len(member)), member] = correct - confidence
    return lambda weights: np.abs(weights @ gaps).sum(1) / weights.sum(1)
