"""Simulate the level of `evaluate.paired_over_seeds`: how often two equally good models have a small p value.

Each example has a difficulty that all trainings share, one that all trainings of one model share, and each training has its own
skill. Each prediction is right with probability 1 / (1 + exp(-sum)).

    python benchmarks/levels.py --draws 4000

prints, for each number of seeds and examples, the largest rate of p < level over the kinds of models, divided by the level.
"""

import argparse
import itertools

import numpy as np

from limelight.evaluate._crossed import behrens_fisher_p_value, variance_components

LEVELS = (0.05, 0.01, 0.001)
# Standard deviations, in logits: of the examples, of each model's examples, of the trainings of the first and second model.
KINDS = ((0, 0, 0, 0), (2, 0, 0, 0), (2, 2, 0, 0), (2, 1, 0.3, 0.3), (0, 0, 0.3, 0.1), (6, 3, 0, 0), (0, 30, 0, 0))


def simulate(draws, seeds, n, accuracy, kind, rng):
    """Return for each model, draw, seed and example 1 if the prediction is right, else 0: two arrays (draws, seeds, n)."""
    of_example, of_model, *of_training = kind
    if of_training[0] != of_training[1]:
        accuracy = 0.5  # elsewhere models whose trainings differ unequally are not equally good
    logit = np.log(accuracy / (1 - accuracy)) * np.sqrt(1 + (of_example**2 + of_model**2 + of_training[0] ** 2) / 2.9)
    shared = logit + rng.normal(0, of_example, (draws, 1, n))
    for deviation in of_training:
        logits = shared + rng.normal(0, of_model, (draws, 1, n)) + rng.normal(0, deviation, (draws, seeds, 1))
        yield (rng.random((draws, seeds, n)) < 1 / (1 + np.exp(-logits))).astype(np.float64)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--draws", type=int, default=4000)
    parser.add_argument("--examples", type=int, nargs="+", default=[35, 200, 2000])
    parser.add_argument("--seeds", type=int, nargs="+", default=[2, 3, 5])
    arguments = parser.parse_args()
    rng = np.random.default_rng(0)
    print("| seeds | examples | " + " | ".join(f"level {level}" for level in LEVELS) + " |\n|---|---|---|---|---|")
    for seeds, n in itertools.product(arguments.seeds, arguments.examples):
        chunk = max(1, min(500, 2_000_000 // (seeds * n)))
        ratios = []
        for accuracy, kind in itertools.product((0.8, 0.97), KINDS):
            p_values = np.concatenate(
                [
                    behrens_fisher_p_value(variance_components(*simulate(chunk, seeds, n, accuracy, kind, rng)))
                    for _ in range(-(-arguments.draws // chunk))
                ]
            )
            ratios.append([(p_values < level).mean() / level for level in LEVELS])
        print(
            f"| {seeds} | {n:,} | " + " | ".join(f"{ratio:.2f}" for ratio in np.max(ratios, axis=0)) + " |", flush=True
        )


if __name__ == "__main__":
    main()
