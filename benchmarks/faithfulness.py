"""Test the tests of an explanation: the protocol of Jain and Wallace (2019) on real texts, and the level on simulated studies.

    python benchmarks/faithfulness.py protocol --data movie-reviews

trains their model, a bidirectional LSTM with additive attention, and the same with equal weights, and prints the agreement of the
attention with gradients and leave-one-out for each predicted class, permuted and adversarial attention, beside published rows.

    python benchmarks/faithfulness.py levels

simulates studies of a model whose tokens have known effects. It prints how often the 95 % interval of the comprehensiveness
contains the true mean, and how often a ranking that is as good as a random one is claimed to beat it.
"""

import argparse
import dataclasses
from typing import Any

import numpy as np
from scipy.special import expit

PUBLISHED = (
    # Data set, tau with gradients of class 0 and 1, tau with leave-one-out of class 0 and 1.
    ("SST", ".34", ".36", ".27", ".32"),
    ("IMDb", ".44", ".43", ".34", ".34"),
    ("20 newsgroups, sports", ".07", ".21", ".06", ".20"),
)
TOKENS = 12


def run_protocol(data_name, sample, epochs, seed):
    """Train both models, explain them on test examples, and print the rows."""
    import limelight as ll
    from limelight import evaluate

    dataset: Any = ll.data.load(data_name)
    split = ll.data.split(dataset)
    names = np.array(dataset.classes)
    (texts, labels), (test_texts, test_labels) = dataset.take(split.train), dataset.take(split.test)
    poolings = {
        "attention": "attention",
        "equal weights": ll.layers.AttentionPooling(score=ll.scores.Dot(scale=0.0), name="attention"),
    }
    for title, pooling in poolings.items():
        model = ll.models.TextClassifier(pooling=pooling, epochs=epochs, random_state=seed, verbose=False)
        model.fit(texts, names[labels])
        accuracy = model.evaluate(test_texts, names[test_labels])["accuracy"]
        print(f"\n{title}: {model.history_['epochs']} epochs, accuracy {accuracy}", flush=True)
        result: Any = ll.explanation.explain(model, test_texts, names[test_labels], sample=sample, seed=seed)
        absolute = {
            name: [np.abs(each) for each in result.rankings[name]] for name in ("gradient_times_input", "leave_one_out")
        }
        print("tau of gradients with leave-one-out:", evaluate.agreement(*absolute.values()))
        if title == "attention":
            print("| data, predicted class | tau with gradients | tau with leave-one-out |\n|---|---|---|")
            for name, group in {"all": result.agreement, **result.agreement_by_class}.items():
                print(f"| {data_name}, {name} | {group['gradients']} | {group['leave_one_out']} |")
            for name, *taus in PUBLISHED:
                print(f"| {name}, published, classes 0 and 1 | {taus[0]}, {taus[1]} | {taus[2]}, {taus[3]} |")
            print("permuted weights move the prediction by", result.permutation)
            print("largest divergence of other attention", result.adversarial["divergence"])
            print("examples with quite different attention", result.adversarial["share"])
            print("cost of equal weights without training again", result.uniform["cost"])
        for name, measures in result.faithfulness.measures.items():
            print(f"comprehensiveness of {name}: {measures['comprehensiveness']}")
        print("\n".join(result.verdict), flush=True)


@dataclasses.dataclass(frozen=True)
class Population:
    """Examples whose tokens have effects on a logit, and a ranking that knows them with noise.

    Args:
        noise: standard deviation of the noise in units of that of the effects; infinity for a ranking that knows nothing.
    """

    noise: float

    def draw(self, count, rng):
        """Return the effects (count, T) of tokens, and their scores."""
        effects = rng.standard_exponential((count, TOKENS)) * np.where(rng.random((count, TOKENS)) < 0.6, 1, -1)
        scores = rng.standard_normal((count, TOKENS))
        if np.isfinite(self.noise):
            # The ranking looks for what speaks for the predicted class.
            scores = self.noise * scores + effects * np.sign(effects.sum(1, keepdims=True))
        return effects, scores


def predict(batch):
    """Return the probabilities of two classes, from the effects of the tokens that are left."""
    positive = expit(np.array([example.sum() for example in batch]))
    return np.stack([1 - positive, positive], axis=1)


def true_comprehensiveness(population, rng, count=200_000):
    """Return the mean comprehensiveness of a ranking over a population."""
    effects, scores = population.draw(count, rng)
    whole = effects.sum(1)
    label = np.where(whole > 0, 1, -1)
    ordered = np.take_along_axis(effects, np.argsort(-scores, axis=1), axis=1)
    drops = []
    for share in (0.01, 0.05, 0.1, 0.2, 0.5):
        removed = max(1, int(np.ceil(share * TOKENS - 1e-9)))
        drops.append(expit(label * whole) - expit(label * (whole - ordered[:, :removed].sum(1))))
    return float(np.mean(drops))


def run_levels(studies, examples, resamples):
    """Simulate studies with a ranking that knows something and one that knows nothing, and print the rates."""
    from limelight import evaluate

    rng = np.random.default_rng(1)
    for title, population in {"informed": Population(1.0), "uninformed": Population(np.inf)}.items():
        truth = true_comprehensiveness(population, rng)
        covered = claimed = claimed_any = 0
        for study in range(studies):
            effects, scores = population.draw(examples, rng)
            result = evaluate.faithfulness(
                predict, list(effects), {"attention": list(scores)}, perturbation=evaluate.Replace(0.0),
                resamples=resamples, seed=study,
            )  # fmt: skip
            estimate: Any = result.measures["attention"]["comprehensiveness"]
            covered += estimate.low <= truth <= estimate.high
            better = [against.better for against in result.against_random["attention"].values()]
            claimed += result.against_random["attention"]["comprehensiveness"].better
            claimed_any += any(better)
        rates = [f"{100 * count / studies:.1f} %" for count in (covered, claimed, claimed_any)]
        print(
            f"{title} ranking, {studies} studies of {examples} examples: true comprehensiveness {truth:.4f}, inside the 95 % "
            f"interval in {rates[0]}; claimed to beat random in {rates[1]}, on any of five measures in {rates[2]}",
            flush=True,
        )


def main():
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    protocol = commands.add_parser("protocol")
    protocol.add_argument("--data", default="movie-reviews")
    protocol.add_argument("--sample", type=int, default=500)
    protocol.add_argument("--epochs", type=int, default=20)
    protocol.add_argument("--seed", type=int, default=1)
    levels = commands.add_parser("levels")
    levels.add_argument("--studies", type=int, default=1000)
    levels.add_argument("--examples", type=int, default=100)
    levels.add_argument("--resamples", type=int, default=1000)
    arguments = parser.parse_args()
    if arguments.command == "protocol":
        run_protocol(arguments.data, arguments.sample, arguments.epochs, arguments.seed)
    else:
        run_levels(arguments.studies, arguments.examples, arguments.resamples)


if __name__ == "__main__":
    main()
