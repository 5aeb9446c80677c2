"""The command `limelight compare`: two saved models on the same data, and how far apart their attention is."""

import argparse
import json
import math
from pathlib import Path
from typing import Any

from limelight._progress import Interruption, make_printable
from limelight.cli import prediction
from limelight.exceptions import UsageError

SCHEMA = 1
_EPILOG = """\
A and B are .keras files of estimators of one kind, or output folders of studies. Take examples that neither was trained on: of a
data set by name, those of the test part of a study are taken.

examples:
  limelight compare limelight-study/first limelight-study/second movie-reviews
  limelight compare a.keras b.keras reviews.csv --label sentiment --json
"""


def add_parser(commands: Any) -> None:
    """Add the command to the parser of the command line."""
    parser = commands.add_parser(
        "compare",
        help="compare two saved models on the same data, and their attention",
        description="Print the metrics of two models with intervals, their difference on the same examples with a paired test, "
        "and how far apart their attention is.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    for name in ("first", "second"):
        parser.add_argument(
            name, metavar=name[0].upper(), help="a .keras file of an estimator, or the folder of a study"
        )
    parser.add_argument(
        "data", metavar="DATA", help="the name of a data set, or a file of texts or series with classes or numbers"
    )
    parser.add_argument(
        "--text", metavar="COLUMN", help="the column of the texts (default: the only one, or a usual name)"
    )
    parser.add_argument(
        "--label", metavar="COLUMN", help="the column of the classes or numbers (default: a usual name)"
    )
    parser.add_argument(
        "--sample",
        type=int,
        metavar="N",
        default=100,
        help="compare the attention on at most N examples (default: 100)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document")


def check(arguments: argparse.Namespace) -> None:
    """Raise for an option that cannot be used, before Keras is loaded.

    Raises:
        UsageError: The sample is empty.
    """
    if arguments.sample < 1:
        raise UsageError(f"--sample must be at least 1. Received: {arguments.sample}.")


def run(arguments: argparse.Namespace, interruption: Interruption) -> None:
    """Compare the models, and print the result in words or as JSON."""
    from limelight.models import load

    paths = [
        Path(path) / "model.keras" if Path(path).is_dir() else Path(path)
        for path in (arguments.first, arguments.second)
    ]
    first, second = (load(path) for path in paths)
    names = _name(arguments.first, arguments.second)
    inputs, targets = _read(arguments, first, second)
    with prediction.report_cut(inputs, first, second):
        document = {
            "schema_version": SCHEMA,
            "data": str(arguments.data),
            "examples": len(inputs),
            **compare_predictions((first, second), inputs, targets, names),
            "attention": compare_attention(first, second, inputs[: arguments.sample]),
        }
    if arguments.json:
        print(json.dumps(document, indent=1, allow_nan=False))
        return
    for line in describe(document):
        print(make_printable(line))


def compare_predictions(estimators: Any, inputs: Any, targets: Any, names: tuple[str, str]) -> dict[str, Any]:
    """Return the metrics of two estimators with intervals, and their paired difference, ready for JSON."""
    from limelight import evaluate

    results = [estimator.evaluate(inputs, targets) for estimator in estimators]
    if hasattr(estimators[0], "classes_"):
        metric, classes = "accuracy", [str(name) for name in estimators[0].classes_]
        truth = estimators[0].target_.encode(targets)
        first, second = (_predict_classes(estimator, inputs, classes) for estimator in estimators)
        comparison = evaluate.paired(truth, first, second, metric=metric, classes=classes, names=names)
    else:
        metric = "mae"
        first, second = (estimator.predict(inputs) for estimator in estimators)
        comparison = evaluate.paired(targets, first, second, metric=metric, names=names)
    models = [
        {"name": name, "metrics": {key: estimate.to_dict() for key, estimate in result.metrics.items()}}
        for name, result in zip(names, results, strict=True)
    ]
    return {
        "models": models,
        "metric": metric,
        "difference": comparison.difference.to_dict(),
        "p_value": None if math.isnan(comparison.p_value) else comparison.p_value,
        "sentence": evaluate.sentence(comparison, "examples"),
    }


def _predict_classes(estimator: Any, inputs: Any, classes: list[str]) -> Any:
    """Return the probabilities (n, K) of classes in a given order: that of another model may differ."""
    names = [str(name) for name in estimator.classes_]
    return estimator.predict_proba(inputs)[:, [names.index(name) for name in classes]]


def compare_attention(first: Any, second: Any, inputs: Any) -> dict[str, Any]:
    """Return how far apart the attention of two estimators is on some inputs, layer by layer, and what has no counterpart."""
    try:
        maps = [estimator.attention(inputs) for estimator in (first, second)]
    except ValueError as error:
        return {"layers": {}, "left_out": [str(error)]}
    layers, left_out = {}, []
    for key in dict.fromkeys([*maps[0], *maps[1]]):
        if key not in maps[0] or key not in maps[1]:
            left_out.append(f"{key}: only one of the models has it.")
            continue
        before, after = maps[0][key], maps[1][key]
        if before.tokens != after.tokens or (*before.shape[:-3], *before.shape[-2:]) != (
            *after.shape[:-3],
            *after.shape[-2:],
        ):
            left_out.append(f"{key}: the models split the examples into other tokens.")
            continue
        difference = before.diff(after)
        layers[key] = {
            "divergence": float(difference.divergence.mean()),
            "share_of_largest": float(difference.divergence.mean() / math.log(2)),
            "heads": difference.pairs.tolist(),
        }
    return {"examples": len(inputs), "layers": layers, "left_out": left_out}


def describe(document: dict[str, Any]) -> list[str]:
    """Return the lines of a comparison in words."""
    from limelight._formatting import METRICS, format_value

    width = max(len(model["name"]) for model in document["models"])
    lines = []
    for model in document["models"]:
        values = []
        for key in dict.fromkeys([document["metric"], "f1_macro", "log_loss", "rmse", "r2"]):
            if (estimate := model["metrics"].get(key)) and estimate["value"] is not None:
                numbers = [estimate[part] for part in ("value", "low", "high") if estimate[part] is not None]
                value, *interval = (format_value(number, METRICS[key], unit=False) for number in numbers)
                unit = " %" if METRICS[key].percent else ""
                values.append(
                    f"{METRICS[key].label} {value}{unit}" + (f" ({' to '.join(interval)})" if interval else "")
                )
        lines.append(f"{model['name']:{width}}   " + "   ".join(values))
    lines += ["", document["sentence"]]
    for key, entry in document["attention"]["layers"].items():
        lines.append(
            f"Attention of {key}: Jensen-Shannon divergence {entry['divergence']:.3f} nats, "
            f"{100 * entry['share_of_largest']:.0f} % of the largest possible, on {document['attention']['examples']} examples; "
            "heads are matched."
        )
    return [*lines, *(f"Not compared: {reason}" for reason in document["attention"]["left_out"])]


def _name(first: str, second: str) -> tuple[str, str]:
    """Return names for sentences: those of the files or folders, or the paths if these are equal."""
    names = Path(first).stem or first, Path(second).stem or second
    return names if names[0] != names[1] else (first, second)


def _read(arguments: argparse.Namespace, first: Any, second: Any) -> tuple[list[Any], Any]:
    from limelight.cli.explaining import read_examples

    kinds = " and ".join(type(each).__name__ for each in (first, second))
    decoders = [hasattr(each, "horizon") or hasattr(each, "beam") for each in (first, second)]
    is_series = [hasattr(each, "n_channels_in_") for each in (first, second)]
    if any(decoders) or is_series[0] != is_series[1]:
        raise UsageError(
            f"Both models must be classifiers, or both regressors, of texts or of series. Received: {kinds}."
        )
    classes = [sorted(map(str, getattr(each, "classes_", []))) for each in (first, second)]
    if classes[0] != classes[1]:
        received = " and ".join(", ".join(each) or "numbers" for each in classes)
        raise UsageError(f"Both models must predict the same classes. Received: {received}.")
    return read_examples(arguments, first, labelled=True)
