"""Inference for two models that are each trained with several seeds and predict the same examples.

Seeds and examples are crossed samples. Everything is computed for any number of leading axes at once, so that the
simulation in `benchmarks/levels.py` runs the same code as `paired_over_seeds`.
"""

import math
from typing import NamedTuple

import numpy as np
from scipy import optimize, special

_STEP = 0.08  # of the quadrature
_SIZES = np.exp(np.arange(-12.0, 37.0, _STEP))


class Components(NamedTuple):
    """The variance of a mean difference over seeds and examples, in two independent parts.

    Args:
        difference: The mean difference, first - second.
        between: Variance of the mean from the trainings, with `seed_freedom` degrees of freedom.
        shared: Variance of the mean from the examples, with `example_freedom` degrees of freedom.
        seed_freedom: Between S - 1 and 1.5 (S - 1), for S seeds.
        example_freedom: n - 1, for n examples.
    """

    difference: np.ndarray
    between: np.ndarray
    shared: np.ndarray
    seed_freedom: np.ndarray
    example_freedom: int


def variance_components(first: np.ndarray, second: np.ndarray) -> Components:
    """Return the difference of two models and its variance, from the value of each example at each seed.

    Args:
        first: Values of the first model (..., S, n) whose mean over examples is its metric, S > 1 and n > 1.
        second: Values of the second model (..., S, n).
    """
    seeds, n = first.shape[-2:]
    values = first - second
    of_seed = values.mean(-1)
    # Covariance over examples of two different seeds' differences: Var(mean over seeds) has S (S - 1) of them.
    squares = ((values - of_seed[..., None]) ** 2).sum((-2, -1))
    of_example = values.mean(-2)
    difference = of_example.mean(-1)
    of_mean = ((of_example - difference[..., None]) ** 2).sum(-1) / (n - 1)
    covariance = np.maximum((seeds**2 * of_mean - squares / (n - 1)) / (seeds * (seeds - 1)), 0.0)
    # Two models that rarely differ look as if they never did: two more differences, as large as the largest, are added.
    largest = np.abs(values).max((-2, -1))
    floor = np.maximum((squares + 2 * largest**2) / (n * seeds + 2) - covariance, 0.0) / n
    variances = np.stack([model.mean(-1).var(-1, ddof=1) for model in (first, second)])
    total, of_squares = variances.sum(0), (variances**2).sum(0)
    # Welch's degrees of freedom are (S - 1) w, with w from 1 (one model is the same at every seed) to 2. They are largest when
    # the larger variance happens to be estimated too low: S = 3 and one variance 1,000 times the other reject three times too
    # often at .001. S - 1 alone would be safe; with this fourth power normal trainings reject at most 1.1 times too often.
    welch = np.divide(total**2, of_squares, out=np.full_like(total, 2.0), where=total > 1e-20 * largest**2)
    seed_freedom = (seeds - 1) * (1 + (welch - 1) ** 4 / 2)
    return Components(difference, np.maximum(total, floor) / seeds, covariance / n, seed_freedom, n - 1)


def behrens_fisher_p_value(components: Components) -> np.ndarray:
    """Return P(|sqrt(between) T(seed_freedom) + sqrt(shared) T(example_freedom)| >= |difference|), T independent t variables.

    The part of smaller variance is integrated over the logarithm of its size, by the trapezoidal rule.
    """
    difference, between, shared, seed_freedom, example_freedom = (
        np.asarray(each, dtype=np.float64)[..., None] for each in components
    )
    seeds_are_larger = between >= shared
    scale, freedom = np.sqrt(np.maximum(between, shared)), np.where(seeds_are_larger, seed_freedom, example_freedom)
    small_freedom = np.where(seeds_are_larger, example_freedom, seed_freedom)
    half_freedom = (small_freedom + 1) / 2
    constant = special.gammaln(half_freedom) - special.gammaln(small_freedom / 2) - np.log(small_freedom * np.pi) / 2
    weights = 2 * _STEP * np.exp(constant - half_freedom * np.log1p(_SIZES**2 / small_freedom)) * _SIZES
    shift, size = np.sqrt(np.minimum(between, shared)) * _SIZES, np.abs(difference)
    with np.errstate(divide="ignore", invalid="ignore"):
        tail = special.stdtr(freedom, -(size - shift) / scale) + special.stdtr(freedom, -(size + shift) / scale)
    p_value = np.minimum((tail * weights).sum(-1), 1.0)
    return np.where(scale[..., 0] > 0, p_value, (size[..., 0] == 0).astype(np.float64))


def behrens_fisher_half_width(components: Components, confidence: float) -> float:
    """Return half the width of the interval of the difference: what would have a p value of 1 - confidence."""

    def excess(size: float) -> float:
        return float(behrens_fisher_p_value(components._replace(difference=np.asarray(size)))) - (1 - confidence)

    upper = math.sqrt(float(components.between + components.shared))
    if upper == 0:
        return 0.0
    while excess(upper) > 0:
        upper *= 2
    return float(optimize.brentq(excess, 0.0, upper, rtol=1e-5))
