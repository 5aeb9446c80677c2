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
examples that the model was not trained on: of a data set by name, those of the test part of a study are taken, and of series to
forecast the last ones. Of a translator each step of a translation is explained on its own, and compared with links by hand if
the data set has them. After an interruption, the same command goes on where it stopped.

examples:
  limelight explain limelight-study/movie-reviews/model.keras movie-reviews
  limelight explain model.keras reviews.csv --label sentiment --sample 100 --json > explanation.json
  limelight explain limelight-study/greek-english/model.keras greek-english --sample 50 --steps 2
  limelight explain limelight-study/elnino/model.keras elnino.csv --horizon-step 1
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
        help="the name of a data set; a .csv, .tsv, .jsonl, .parquet or .txt file of texts, or - for lines of stdin; a .npy or "
        ".ts file of series; for a forecaster a table like that of its training",
    )
    parser.add_argument(
        "translations",
        metavar="TRANSLATIONS",
        nargs="?",
        help="for a translator: a text file with the translation of each line of DATA",
    )
    parser.add_argument(
        "--text",
        metavar="COLUMN",
        help="the column of the texts, or their language in a .tmx file (default: the only one, or a usual name)",
    )
    parser.add_argument("--label", metavar="COLUMN", help="the column of the true classes or numbers (default: none)")
    parser.add_argument("--sample", type=int, metavar="N", default=200, help="take at most N examples (default: 200)")
    parser.add_argument(
        "--steps", type=int, metavar="N", help="of each translation explain at most N steps, at random (default: 4)"
    )
    parser.add_argument(
        "--horizon-step", type=int, metavar="N", help="explain step N of a forecast alone (default: the whole forecast)"
    )
    parser.add_argument(
        "--folds",
        type=int,
        metavar="N",
        help="explain the last N forecasts of each series (default: those that a study tests)",
    )
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
        UsageError: The sample is too small, or a number is not positive.
    """
    if arguments.sample < 2:
        raise UsageError(f"--sample must be at least 2. Received: {arguments.sample}.")
    for option in ("steps", "horizon_step", "folds"):
        value = getattr(arguments, option)
        if value is not None and value < 1:
            raise UsageError(f"--{option.replace('_', '-')} must be at least 1. Received: {value}.")


def run(arguments: argparse.Namespace, interruption: Interruption) -> None:
    """Explain the model, and print the table and the verdict, or JSON."""
    from limelight.data.fetching import cache_folder
    from limelight.explanation import explain
    from limelight.models import load

    estimator = load(arguments.model)
    options = _get_options(arguments, estimator)
    if not hasattr(estimator, "beam"):
        prediction.check_translations(arguments, estimator)
    if hasattr(estimator, "horizon"):
        inputs, targets = read_series_to_forecast(arguments, estimator), None
    elif hasattr(estimator, "beam"):
        inputs, targets, options["marks"] = read_pairs(arguments, estimator)
    else:
        inputs, targets = read_examples(arguments, estimator)
    try:
        with prediction.report_cut(inputs, estimator), Progress(arguments.quiet, interruption) as progress:
            result = explain(
                estimator,
                inputs,
                targets,
                sample=arguments.sample,
                layer=arguments.layer,
                perturbation=arguments.perturbation,
                seed=arguments.seed,
                checkpoint=cache_folder() / "explanations",
                progress=progress,
                **options,
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


def _get_options(arguments: argparse.Namespace, estimator: Any) -> dict[str, Any]:
    """Return the arguments of `explain` that belong to one kind of model.

    Raises:
        UsageError: An option was given that belongs to another kind.
    """
    kinds = {"steps": "beam", "horizon_step": "horizon", "folds": "horizon", "label": "predict_proba"}
    needs = {"beam": "a translator", "horizon": "a forecaster", "predict_proba": "a classifier or regressor"}
    is_decoder = hasattr(estimator, "horizon") or hasattr(estimator, "beam")
    options = {}
    for option, attribute in kinds.items():
        value = getattr(arguments, option)
        fits = not is_decoder if option == "label" else hasattr(estimator, attribute)
        if value is not None and not fits:
            flag = f"--{option.replace('_', '-')}"
            raise UsageError(f"{flag} needs {needs[attribute]}. Received: {type(estimator).__name__}. Leave it out.")
        if value is not None and option != "label":
            options["output_steps" if option == "steps" else option] = value
    return options


def read_series_to_forecast(arguments: argparse.Namespace, estimator: Any) -> Any:
    """Return the series of a named data set or of a table."""
    from limelight import data

    if arguments.data not in data.NAMES:
        return prediction.read_panel(arguments.data, estimator)
    panel: Any = data.load(arguments.data)
    if not isinstance(panel, data.Panel):
        raise DataError(f"The data must be series to forecast. {arguments.data!r} is {panel!r}. Name another.")
    return panel


def read_pairs(arguments: argparse.Namespace, estimator: Any) -> tuple[list[str], Any, Any]:
    """Return the texts to translate; of a named data set with links by hand also the references and the links."""
    from limelight import data

    if arguments.data not in data.NAMES or arguments.translations is not None:
        _, sources, _ = prediction.read_sources(arguments.data, arguments.translations, arguments.text)
        given = list(sources)
        # Repeated texts would count as several observations of the intervals.
        texts = list(dict.fromkeys(text for text in given if text.strip()))
        if not texts:
            raise DataError(f"{arguments.data!r} must hold a text to translate. Received: none in {len(given):,} rows.")
        if len(texts) < len(given) and not arguments.quiet:
            print(make_printable(f"{len(given) - len(texts):,} empty or repeated texts left out"), file=sys.stderr)
        return texts, None, None
    pairs: Any = data.load(arguments.data)
    if not isinstance(pairs, data.Pairs):
        raise DataError(f"The data must be texts to translate. {arguments.data!r} is {pairs!r}. Name another.")
    test = data.split(pairs).test
    texts = [pairs.sources[index] for index in test]
    if pairs.alignments is None or {estimator.source_unit, estimator.target_unit} != {"word"}:
        return texts, None, None
    return texts, [pairs.targets[index] for index in test], [pairs.alignments[index] for index in test]


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
    # Labels of a file are text; those of an estimator may be numbers.
    names = None if is_regressor else {str(value): value for value in estimator.classes_}
    dataset = data.load(
        arguments.data,
        text=arguments.text,
        label=arguments.label,
        task="regress" if is_regressor else None,
        classes=None if names is None else tuple(names),
    )
    if not isinstance(dataset, data.Dataset) or (dataset.kind == "series") != is_series:
        kind = "series" if is_series else "texts"
        raise DataError(
            f"The data must be {kind} with classes or numbers. {arguments.data!r} is {dataset!r}. Name another."
        )
    indices = data.split(dataset).test if is_named else range(len(dataset))
    inputs = [dataset.inputs[index] for index in indices]
    targets: Any = dataset.targets
    if names is None or targets is not None:
        return inputs, targets[list(indices)]
    labels = [dataset.classes[dataset.labels[index]] for index in indices]
    unknown = sorted(set(labels) - set(names))
    if unknown:
        raise DataError(
            f"The classes of the data must be those of the model: {', '.join(names)}. Received: {unknown[0]!r}. Name another "
            "column: --label."
        )
    return inputs, [names[label] for label in labels]
