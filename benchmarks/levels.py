"""Simulate the level of `evaluate.paired_over_seeds`: how often two equally good models have a small p value.

Each example has a difficulty that all trainings share, one that all trainings of one model share, and each training has its own
skill. Each prediction is right with probability 1 / (1 + exp(-sum)). The skills of one model differ by at most 0.3 logits (7
points of accuracy at 50 %), so that accuracies are nearly normal; with `--wide`, by 1 logit (20 points) in two kinds of models.

    python benchmarks/levels.py

prints, for each number of seeds and examples, the rate of p < level of the worst kind of models, divided by the level. The worst
kind is found with `--draws` draws of each kind, and its rate is that of five times as many new draws: the largest of many rates
would be too high by chance.
"""

import argparse
import itertools

import numpy as np
from scipy.special import expit

from limelight.evaluate._crossed import behrens_fisher_p_value, variance_components

LEVELS = np.array([0.05, 0.01, 0.001])
# Standard deviations, in logits: of the examples, of each model's examples, of the trainings of the first and second model.
KINDS = (
    (0, 0, 0, 0),
    (2, 0, 0, 0),
    (2, 2, 0, 0),
    (6, 3, 0, 0),
    (0, 30, 0, 0),
    (2, 1, 0.3, 0.3),
    (0, 0, 0.3, 0.1),
    (0, 0, 0.3, 0.03),
    (0, 0, 0.3, 0),
)
# In place of the last two: accuracies from nearly 0 to nearly 1, which are not normal.
WIDE = ((0, 0, 1, 0.1), (0, 0, 1, 0))
ACCURACIES = (0.8, 0.97)
# Below so many standard errors p is above 0.05, and need not be computed.
_INSIGNIFICANT = 1.7


def simulate(draws, seeds, n, accuracy, kind, rng):
    """Return for each model, draw, seed and example 1 if the prediction is right, else 0: two arrays (draws, seeds, n)."""
    of_example, of_model, *of_training = kind
    if of_training[0] != of_training[1]:
        accuracy = 0.5  # elsewhere models whose trainings differ unequally are not equally good
    logit = np.log(accuracy / (1 - accuracy)) * np.sqrt(1 + (of_example**2 + of_model**2 + of_training[0] ** 2) / 2.9)

    def normal(deviation, *shape):
        return np.float32(deviation) * rng.standard_normal(shape, np.float32) if deviation else np.zeros((1, 1, 1), "f")

    shared = np.float32(logit) + normal(of_example, draws, 1, n)
    for deviation in of_training:
        logits = shared + normal(of_model, draws, 1, n) + normal(deviation, draws, seeds, 1)
        yield (rng.random((draws, seeds, n), np.float32) < expit(logits)).astype(np.float32)


def estimate_rates(draws, seeds, n, accuracy, kind, rng):
    """Return the share of draws with p < level, for each level."""
    chunk = max(1, min(draws, 2_000_000 // (seeds * n)))
    counts, done = np.zeros(len(LEVELS)), 0
    while done < draws:
        components = variance_components(*simulate(chunk, seeds, n, accuracy, kind, rng))
        standard_error = np.sqrt(components.between + components.shared)
        possible = np.abs(components.difference) > _INSIGNIFICANT * standard_error
        candidates = [each[possible] if isinstance(each, np.ndarray) else each for each in components]
        p_values = behrens_fisher_p_value(type(components)(*candidates))
        counts += (p_values[:, None] < LEVELS).sum(0)
        done += chunk
    return counts / done


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--draws", type=int, default=4000)
    parser.add_argument("--examples", type=int, nargs="+", default=[35, 200, 2000])
    parser.add_argument("--seeds", type=int, nargs="+", default=[2, 3, 5])
    parser.add_argument("--wide", action="store_true")
    arguments = parser.parse_args()
    kinds = (*KINDS[:-2], *WIDE) if arguments.wide else KINDS
    rng = np.random.default_rng(0)
    print("| seeds | examples | " + " | ".join(f"level {level}" for level in LEVELS) + " |\n|---|---|---|---|---|")
    for seeds, n in itertools.product(arguments.seeds, arguments.examples):
        cases = list(itertools.product(ACCURACIES, kinds))
        rates = [estimate_rates(arguments.draws, seeds, n, *case, rng) for case in cases]
        worst = np.argmax(rates, axis=0)
        confirmed = {case: estimate_rates(5 * arguments.draws, seeds, n, *cases[case], rng) for case in set(worst)}
        ratios = [confirmed[case][level] / LEVELS[level] for level, case in enumerate(worst)]
        print(f"| {seeds} | {n:,} | " + " | ".join(f"{ratio:.2f}" for ratio in ratios) + " |", flush=True)


if __name__ == "__main__":
    main()
