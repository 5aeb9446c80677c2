"""The command `limelight explain`: whether the attention of a saved model explains its predictions."""

import argparse
import sys
from pathlib import Path
from typing import Any

from limelight._progress import Interruption, Progress, make_printable
from limelight.cli import prediction
from limelight.exceptions import DataError, UsageError

_EPILOG = """\
With the classes or numbers of the examples (--label, or a data set that has them) the cost of equal weights is reported. Take
examples that the model was not trained on: of a data set by name, those of the test part of a study are taken.

examples:
  limelight explain limelight-study/movie-reviews/model.keras movie-reviews
  limelight explain model.keras reviews.csv --label sentiment --sample 100 --json > explanation.json
"""


def add_parser(commands: Any) -> None:
    """Add the command to the parser of the command line."""
    parser = commands.add_parser(
        "explain",
        help="test whether the attention of a saved model explains its predictions",
        description="Remove tokens in the order of attention, gradients and other rankings, compare the rankings, and replace "
        "the attention by permuted, equal and very different weights. Prints a table and a verdict that follows from it.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "model", metavar="MODEL", help="a .keras file of an estimator, such as OUT/model.keras of a study"
    )
    parser.add_argument(
        "data",
        metavar="DATA",
        help="the name of a data set; a .csv, .tsv, .jsonl, .parquet or .txt file of texts; a .npy or .ts file of series",
    )
    parser.add_argument(
        "--text", metavar="COLUMN", help="the column of the texts (default: the only one, or a usual name)"
    )
    parser.add_argument("--label", metavar="COLUMN", help="the column of the true classes or numbers (default: none)")
    parser.add_argument("--sample", type=int, metavar="N", default=200, help="take at most N examples (default: 200)")
    parser.add_argument(
        "--layer", metavar="PATH", help="the attention to explain (default: the last one that reads the tokens)"
    )
    parser.add_argument(
        "--perturbation",
        choices=("replace", "delete"),
        default="replace",
        help="write the unknown word (or the mean) in the place of a token, or delete it (default: replace)",
    )
    parser.add_argument("--seed", type=int, metavar="N", default=0, help="seed of all random numbers (default: 0)")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--quiet", action="store_true", help="print no progress")


def check(arguments: argparse.Namespace) -> None:
    """Raise for an option that cannot be used, before Keras is loaded.

    Raises:
        UsageError: The sample is too small.
    """
    if arguments.sample < 2:
        raise UsageError(f"--sample must be at least 2. Received: {arguments.sample}.")


def run(arguments: argparse.Namespace, interruption: Interruption) -> None:
    """Explain the model, and print the table and the verdict, or JSON."""
    from limelight.explanation import explain
    from limelight.models import load

    estimator = load(arguments.model)
    inputs, targets = read_examples(arguments, estimator)
    try:
        with Progress(arguments.quiet, interruption) as progress:
            result = explain(
                estimator,
                inputs,
                targets,
                sample=arguments.sample,
                layer=arguments.layer,
                perturbation=arguments.perturbation,
                seed=arguments.seed,
                progress=progress,
            )
    except TypeError as error:
        raise UsageError(f"{arguments.model}: {error}") from error
    except ValueError as error:
        raise DataError(str(error)) from error
    if arguments.json:
        sys.stdout.write(result.to_json() + "\n")
        return
    for line in str(result).splitlines():
        print(make_printable(line))


def read_examples(arguments: argparse.Namespace, estimator: Any, labelled: bool = False) -> tuple[list[Any], Any]:
    """Return the inputs of an estimator, and their targets if there are any; there must be if `labelled`."""
    from limelight import data

    is_series = hasattr(estimator, "n_channels_in_")
    is_named = arguments.data in data.NAMES
    is_regressor = not hasattr(estimator, "classes_")
    if not (is_named or labelled or arguments.label or Path(arguments.data).suffix == ".ts"):
        _, inputs, _ = (
            prediction.read_series(arguments.data)
            if is_series
            else prediction.read_texts(arguments.data, arguments.text)
        )
        return list(inputs), None
    dataset = data.load(
        arguments.data, text=arguments.text, label=arguments.label, task="regress" if is_regressor else None
    )
    if not isinstance(dataset, data.Dataset) or (dataset.kind == "series") != is_series:
        kind = "series" if is_series else "texts"
        raise DataError(
            f"The data must be {kind} with classes or numbers. {arguments.data!r} is {dataset!r}. Name another."
        )
    indices = data.split(dataset).test if is_named else range(len(dataset))
    inputs = [dataset.inputs[index] for index in indices]
    if dataset.targets is not None:
        return inputs, dataset.targets[list(indices)]
    # Labels of a file are text; those of an estimator may be numbers.
    names = {str(value): value for value in estimator.classes_}
    labels = [dataset.classes[dataset.labels[index]] for index in indices]
    unknown = sorted(set(labels) - set(names))
    if unknown:
        raise DataError(
            f"The classes of the data must be those of the model: {', '.join(names)}. Received: {unknown[0]!r}. Name another "
            "column: --label."
        )
    return inputs, [names[label] for label in labels]
