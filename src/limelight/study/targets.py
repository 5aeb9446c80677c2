"""The two kinds of targets of texts and series, classes and numbers: how models of them are measured and shown."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from limelight import plot
from limelight._formatting import format_value
from limelight.evaluate.estimates import bootstrap, widen_constant
from limelight.evaluate.metrics import regression_statistics, value_range
from limelight.models.objectives import Classification, Regression
from limelight.models.targets import Classes, Numbers
from limelight.study import evaluation, verdict
from limelight.study.evaluation import Evaluation, Outcome
from limelight.study.folder import Run

REGRESSION_METRICS = ("rmse", "mae", "mse", "r2")
MEAN = "constant"
_NUM_DRAWN = 300
BEST, MEDIAN, WORST = "smallest error", "median error", "largest error"


class ClassTargets:
    """Classes as targets.

    Args:
        labels: The class of each example of each part.
        classes: The names of the classes.
    """

    trivial, trivial_title, linear_title = verdict.MAJORITY, "Class shares", "linear"

    def __init__(self, labels: Mapping[str, np.ndarray], classes: Sequence[str]) -> None:
        self.labels, self.classes = labels, classes
        self.objective, self.target, self.num_outputs = Classification(), Classes(classes), len(classes)
        self.counts = np.bincount(labels["train"], minlength=len(classes))
        self.summary = f"in {len(classes)} classes"

    def encode(self, labels: np.ndarray) -> np.ndarray:
        """Return the targets of the training."""
        return labels

    def decode(self, outputs: np.ndarray) -> np.ndarray:
        """Return class probabilities (examples, classes)."""
        return outputs

    def trivial_run(self) -> Run:
        """Return the run of a model that has learned the class shares alone."""
        return verdict.majority_run(self.labels, len(self.classes))

    def describe_run(self, run: Run) -> str:
        """Return the accuracy of a run on the validation part in words."""
        accuracy = float((run.predictions["validation"].argmax(1) == self.labels["validation"]).mean())
        return f"validation accuracy {100 * accuracy:.1f} %"

    def evaluate(self, predictions: Mapping[str, Sequence[np.ndarray]], names: Mapping[str, str]) -> Outcome:
        """Evaluate the predictions of all models on the test part, and compare those that have a name."""
        truth, metric = self.labels["test"], verdict.choose_metric(self.counts)
        named = {name: each for name, each in predictions.items() if name in names}
        return Outcome(
            {name: evaluation.evaluate_predictions(truth, each, self.classes) for name, each in predictions.items()},
            evaluation.compare_models(truth, named, names, self.classes, (metric, "log_loss")),
            metric,
            verdict.describe_imbalance(metric, self.classes, self.counts, truth),
        )

    def choose(self, predictions: np.ndarray, count: int) -> dict[str, list[int]]:
        """Choose test examples of each kind."""
        return evaluation.choose_examples(predictions, self.labels["test"], count)

    def describe(self, index: int, predictions: np.ndarray) -> dict[str, Any]:
        """Return the truth and the prediction of a test example, ready for JSON."""
        prediction = int(predictions[index].argmax())
        return {
            "truth": self.classes[int(self.labels["test"][index])],
            "prediction": self.classes[prediction],
            "probability": float(predictions[index, prediction]),
        }

    def describe_data(self) -> dict[str, Any]:
        """Return the classes, and how many examples of each every part has."""
        counts = {name: np.bincount(each, minlength=len(self.classes)) for name, each in self.labels.items()}
        return {
            "classes": list(self.classes),
            "balance": {
                label: {name: int(count[index]) for name, count in counts.items()}
                for index, label in enumerate(self.classes)
            },
        }

    def draw(self, folder: Path, evaluations: Mapping[str, Evaluation], titles: Mapping[str, str]) -> None:
        """Draw reliability and confusion matrices."""
        plot.save(
            folder / "reliability.svg",
            plot.reliability({titles[name]: each.reliability for name, each in evaluations.items()}),
        )
        for name, each in evaluations.items():
            plot.save(
                folder / f"confusion-{name}.svg", plot.confusion(each.confusion, self.classes, title=titles[name])
            )


class NumberTargets:
    """Numbers as targets.

    Args:
        numbers: The number of each example of each part.
    """

    trivial, trivial_title, linear_title = MEAN, "Mean of the targets", "ridge"

    def __init__(self, numbers: Mapping[str, np.ndarray]) -> None:
        self.numbers = numbers
        self.objective, self.target, self.num_outputs = Regression(), Numbers.fit(numbers["train"]), 1
        self.summary = f"with numbers from {numbers['train'].min():g} to {numbers['train'].max():g}"

    def encode(self, numbers: np.ndarray) -> np.ndarray:
        """Return standardized numbers (examples, 1)."""
        return self.target.encode(numbers)

    def decode(self, outputs: np.ndarray) -> np.ndarray:
        """Return numbers (examples,) in the unit of the data."""
        return self.target.decode(np.asarray(outputs, np.float64))

    def trivial_run(self) -> Run:
        """Return the run of a model that always predicts the mean of the train part."""
        outputs = {name: np.zeros((len(self.numbers[name]), 1)) for name in ("validation", "test")}
        losses, errors = self.objective.evaluate(self.encode(self.numbers["validation"]), outputs["validation"])
        validation = {"loss": float(losses.mean()), "mae": float(errors.mean())}
        summary = {"seconds": 0.0, "epochs": None, "parameters": 1, "history": {}, "validation": validation}
        return Run(MEAN, 1, summary, {name: self.decode(each) for name, each in outputs.items()})

    def describe_run(self, run: Run) -> str:
        """Return the error of a run on the validation part in words."""
        errors = run.predictions["validation"] - self.numbers["validation"]
        return f"validation RMSE {format_value(float(np.sqrt((errors**2).mean())), 'rmse')}"

    def evaluate(self, predictions: Mapping[str, Sequence[np.ndarray]], names: Mapping[str, str]) -> Outcome:
        """Evaluate the predictions of all models on the test part, and compare those that have a name."""
        truth = self.numbers["test"]
        evaluations = {}
        for model, each in predictions.items():
            statistics = [regression_statistics(truth[:, None], prediction[:, None]) for prediction in each]
            mean = evaluation.mean_over_seeds(statistics)
            estimates = {
                name: widen_constant(estimate, value_range(name), len(truth))
                for name, estimate in bootstrap(mean, len(truth)).items()
                if not isinstance(estimate, list)
            }
            # The report draws some of them against the truth.
            shown = np.unique(np.linspace(0, len(truth) - 1, _NUM_DRAWN).astype(int))
            pairs = np.stack([truth, np.mean(each, axis=0)], axis=1)[shown]
            details = {"predictions": pairs.tolist()}
            evaluations[model] = evaluation.summarize_seeds(
                statistics, estimates, len(truth), REGRESSION_METRICS, details=details
            )
        named = {name: each for name, each in predictions.items() if name in names}
        return Outcome(evaluations, evaluation.compare_models(truth, named, names, metrics=("rmse", "mae")), "rmse")

    def choose(self, predictions: np.ndarray, count: int) -> dict[str, list[int]]:
        """Choose test examples of each kind."""
        return choose_by_error(np.abs(predictions - self.numbers["test"]), count)

    def describe(self, index: int, predictions: np.ndarray) -> dict[str, Any]:
        """Return the truth and the prediction of a test example, ready for JSON."""
        truth, prediction = float(self.numbers["test"][index]), float(predictions[index])
        return {"truth": float(f"{truth:.5g}"), "prediction": float(f"{prediction:.5g}"), "probability": None}

    def describe_data(self) -> dict[str, Any]:
        """Return the spread of the numbers of each part."""
        functions = {"minimum": np.min, "mean": np.mean, "maximum": np.max, "standard deviation": np.std}
        return {
            "targets": {
                part: {name: float(function(each)) for name, function in functions.items()}
                for part, each in self.numbers.items()
            }
        }

    def draw(self, folder: Path, evaluations: Mapping[str, Evaluation], titles: Mapping[str, str]) -> None:
        """Draw nothing further."""


def choose_by_error(errors: np.ndarray, count: int) -> dict[str, list[int]]:
    """Choose up to `count` examples of each kind, those with the smallest, the most ordinary and the largest errors, none twice.

    Args:
        errors: The error of each example (examples,).
        count: The number of examples of each kind.

    Example:
        >>> choose_by_error(np.array([5.0, 1.0, 3.0, 9.0]), 1)
        {'smallest error': [1], 'median error': [2], 'largest error': [3]}
    """
    order = np.argsort(errors, kind="stable").tolist()
    count = min(count, max(1, len(order) // 3))
    if not count or len(order) < 3:
        return {BEST: order[:count]}
    middle = (len(order) - count) // 2
    groups = (order[:count], order[middle : middle + count], order[len(order) - count :][::-1])
    return dict(zip((BEST, MEDIAN, WORST), groups, strict=True))
