"""The command `limelight predict`: predictions of a saved estimator for a file, a text or standard input."""

import argparse
import contextlib
import csv
import functools
import itertools
import json
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from limelight._progress import Interruption
from limelight.cli.streams import read_stdin
from limelight.exceptions import DataError, UsageError

SCHEMA = 1
_CHUNK = 1000
# Files that hold no table of texts: a wrong path must not be taken for a text.
_OTHER_SUFFIXES = (".arff", ".json", ".keras", ".npy", ".npz", ".png", ".jpg", ".jpeg", ".tmx", ".ts", ".zip")


def check(arguments: argparse.Namespace) -> None:
    """Raise for options that exclude each other, before Keras is loaded."""
    if arguments.attention and not arguments.json:
        raise UsageError("--attention needs --json, because weights do not fit in a table. Add --json.")
    if arguments.n_best is not None and not arguments.json:
        raise UsageError("--n-best needs --json, because a row of a table has one translation. Add --json.")
    if not arguments.sample:
        for option in ("temperature", "seed"):
            if getattr(arguments, option) is not None:
                raise UsageError(f"--{option} is of translations drawn at random. Add --sample.")


def run(arguments: argparse.Namespace, interruption: Interruption) -> None:
    """Print the predictions: the rows of the input with new columns as CSV, or one JSON document."""
    from limelight.models import load

    estimator = load(arguments.model)
    if not hasattr(estimator, "beam"):
        check_translations(arguments, estimator)
        for option, value in (("--beam", arguments.beam), ("--n-best", arguments.n_best)):
            if value is not None:
                raise UsageError(f"{option} needs a translator. Received: {type(estimator).__name__}. Leave it out.")
        if arguments.sample:
            raise UsageError(f"--sample needs a translator. Received: {type(estimator).__name__}. Leave it out.")
    elif arguments.beam is not None:
        estimator.set_params(beam=arguments.beam)
    if hasattr(estimator, "horizon"):
        _print_forecasts(arguments, estimator)
        return
    if hasattr(estimator, "n_channels_in_"):
        columns, inputs, rows = read_series(arguments.input)
    elif hasattr(estimator, "beam"):
        columns, inputs, rows = read_sources(arguments.input, arguments.translations, arguments.text)
    else:
        columns, inputs, rows = read_texts(arguments.input, arguments.text)
    counts: Counter[str] = Counter()
    chunks = _chunk(inputs, rows, functools.partial(_count_unread, estimator, counts))
    if arguments.sample or arguments.n_best is not None:
        predict_chunk = functools.partial(_translate, arguments, estimator)
    else:
        predict_chunk = functools.partial(predict, estimator)
    # They are counted over all chunks.
    with ignore_cut():
        if arguments.json:
            _print_json(arguments, estimator, predict_chunk, chunks)
        else:
            _print_table(columns, estimator, predict_chunk, chunks)
    _report_unread(estimator, counts)


def _translate(arguments: argparse.Namespace, estimator: Any, texts: list[str]) -> list[dict[str, Any]]:
    """Return for each text the best or first translation, and with `--n-best` the others too."""
    count = 1 if arguments.n_best is None else arguments.n_best
    if arguments.sample:
        temperature = 1.0 if arguments.temperature is None else arguments.temperature
        translations = estimator.sample(texts, count, temperature=temperature, seed=arguments.seed)
    else:
        translations = estimator.predict_n_best(texts, count)
    results = []
    for hypotheses in translations:
        entry: dict[str, Any] = {"prediction": hypotheses[0].text}
        if arguments.n_best is not None:
            entry["translations"] = [
                {"text": each.text, "log_probability": each.log_probability} for each in hypotheses
            ]
        results.append(entry)
    return results


def _print_forecasts(arguments: argparse.Namespace, estimator: Any) -> None:
    """Print a row for each step after the end of each series of a table, or one JSON document."""
    from limelight.models.panels import future_times

    if arguments.attention or arguments.text:
        raise UsageError(
            "--attention and --text need a model of texts or series. Received: a forecaster. Leave them out."
        )
    panel = read_panel(arguments.input, estimator)
    for repair in panel.repairs:
        print(f"limelight: {repair}", file=sys.stderr)
    forecasts, quantiles = estimator.predict(panel), estimator.target_.quantiles
    names = ["forecast"] if quantiles is None else [f"forecast_{level:g}" for level in quantiles]
    steps = future_times(panel, estimator.inputs_.horizon, estimator.inputs_.grid)
    rows = [
        [name, str(time), *(float(value) for value in forecast.reshape(-1))]
        for name, times, series in zip(panel.ids, steps, forecasts, strict=True)
        for time, forecast in zip(times, series, strict=True)
    ]
    header = ["series", "time", *names]
    if arguments.json:
        predictions = [dict(zip(header, row, strict=True)) for row in rows]
        _print_document(arguments, estimator, predictions)
        return
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerows([header, *rows])


def read_panel(source: str, estimator: Any) -> Any:
    """Return the series of a table, from the columns with which a forecaster was trained."""
    from limelight.data import load_panel

    columns = estimator.inputs_.columns
    return load_panel(
        Path(source),
        time=columns.time,
        value=columns.value,
        series=columns.series,
        known=columns.known,
        observed=columns.observed,
        static=columns.static,
        grid=estimator.inputs_.grid,
    )


def read_texts(
    source: str, column: str | None, is_translator: bool = False
) -> tuple[list[str], Iterator[Any], Iterator[list[Any]]]:
    """Return the columns, the texts and the rows of a file, of lines of standard input ("-"), or of the one text given."""
    from limelight.data import rows as tables
    from limelight.data.readers import TEXT_COLUMNS
    from limelight.data.tables import Role

    if source == "-":
        texts, rows = itertools.tee(read_stdin())
        return ["text"], texts, ([line] for line in rows)
    if not source.strip():
        raise UsageError(f"INPUT must be a file, a text or -. Received: {source!r}, which has no words.")
    path = Path(source)
    suffixes = (*tables.SUFFIXES, *_OTHER_SUFFIXES)
    is_path = len(source) < 1000 and (path.exists() or any(suffix in path.suffixes for suffix in suffixes))
    if not is_path:
        return ["text"], iter([source]), iter([[source]])
    if is_translator:
        columns, name, rows = tables.read_pair_rows(path, column)
    else:
        columns, name, rows = tables.read_rows(path, Role("text", column, TEXT_COLUMNS, strings_only=True))
    index = columns.index(name)
    rows, copies = itertools.tee(rows)
    return columns, (_check_text(row[index], number) for number, row in enumerate(copies, start=1)), rows


def read_sources(
    source: str, translations: str | None, column: str | None
) -> tuple[list[str], Iterator[Any], Iterator[list[Any]]]:
    """Return the columns, the texts to translate and the rows of a file, or of two files whose lines belong together."""
    from limelight.data.pairs import read_lines

    if translations is None:
        return read_texts(source, column, is_translator=True)
    if column is not None:
        raise UsageError(f"Two files of lines have no columns. Received: --text {column}. Leave it out.")
    sources, targets, _ = read_lines(Path(source), Path(translations))
    return ["source", "target"], iter(sources), map(list, zip(sources, targets, strict=True))


def check_translations(arguments: argparse.Namespace, estimator: Any) -> None:
    """Raise if two files are given to a model that does not translate."""
    if arguments.translations is not None:
        raise UsageError(
            f"A file of translations needs a translator. Received: {arguments.translations!r} for a "
            f"{type(estimator).__name__}. Leave it out."
        )


def _check_text(value: Any, number: int) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise DataError(
            f"Texts must be strings. Received: {type(value).__name__} in row {number}. Name another column: --text."
        )
    return value


def read_series(source: str) -> tuple[list[str], Iterator[Any], Iterator[list[Any]]]:
    """Return the columns, the series and their numbers, from a .npy file or a .ts file."""
    import numpy as np

    path = Path(source)
    if path.suffix == ".npy":
        try:
            series: Sequence[Any] = np.load(path, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise DataError(f"{source!r} must be a .npy file of numbers (series, steps, channels). {error}.") from error
    elif path.suffix == ".ts":
        from limelight.data.seriesfiles import read_series

        series = read_series(path, None).inputs
    else:
        raise DataError(f"The input of a model of series must be a .npy or .ts file. Received: {source[:100]!r}.")
    return ["series"], iter(series), ([number] for number in range(len(series)))


def _count_unread(estimator: Any, counts: Counter[str], inputs: list[Any]) -> None:
    """Count the texts that are empty, and the inputs of which a model does not read the end."""
    counts["inputs"] += len(inputs)
    counts["empty"] += sum(isinstance(each, str) and not each.strip() for each in inputs)
    counts["cut"] += estimator.count_cut(inputs)


def _report_unread(estimator: Any, counts: Counter[str]) -> None:
    noun = "series" if hasattr(estimator, "n_channels_in_") else "texts"
    if count := counts["empty"]:
        reason = "is empty: its prediction says" if count == 1 else "are empty: their predictions say"
        print(f"limelight: {count:,} of {counts['inputs']:,} {noun} {reason} nothing.", file=sys.stderr)
    if counts["cut"]:
        print(f"limelight: {describe_cut(estimator, counts['cut'], counts['inputs'])}.", file=sys.stderr)


@contextlib.contextmanager
def ignore_cut() -> Iterator[None]:
    """Ignore warnings of inputs that are longer than a model reads, where they are counted."""
    from limelight.models.inputs import CutWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CutWarning)
        yield


def report_cut(inputs: Any, *estimators: Any) -> contextlib.AbstractContextManager[None]:
    """Print how many inputs are longer than models read, and return `ignore_cut`."""
    # A forecaster reads the end of a series, as far back as it was trained.
    counts = {each: each.count_cut(inputs) for each in estimators if not hasattr(each, "horizon")}
    for line in {describe_cut(each, cut, len(inputs)): None for each, cut in counts.items() if cut}:
        print(f"limelight: {line}.", file=sys.stderr)
    return ignore_cut()


def describe_cut(estimator: Any, cut: int, total: int) -> str:
    """Return how many inputs are longer than what a model reads of them, in words."""
    noun = "series" if hasattr(estimator, "n_channels_in_") else "texts"
    reason = (
        "is longer than the model reads: its end is" if cut == 1 else "are longer than the model reads: their ends are"
    )
    return f"{cut:,} of {total:,} {noun} {reason} left out"


def _chunk(
    inputs: Iterator[Any], rows: Iterator[list[Any]], count: Callable[[list[Any]], None]
) -> Iterator[tuple[list[Any], list[list[Any]]]]:
    """Yield some inputs with their rows at a time, so that a large file is not held in memory; `count` sees the inputs."""
    while batch := list(itertools.islice(inputs, _CHUNK)):
        count(batch)
        yield batch, list(itertools.islice(rows, len(batch)))


def _print_table(
    columns: Sequence[str],
    estimator: Any,
    predict_chunk: Callable[[list[Any]], list[dict[str, Any]]],
    chunks: Iterator[tuple[list[Any], list[list[Any]]]],
) -> None:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    added = ["prediction", "probability"] if hasattr(estimator, "predict_proba") else ["prediction"]
    names = [f"{name}_predicted" if name in columns else name for name in added]
    # After the first rows are read, so that nothing is printed above an error in them.
    first = next(chunks, None)
    writer.writerow([*columns, *names])
    for inputs, rows in itertools.chain([] if first is None else [first], chunks):
        for row, prediction in zip(rows, predict_chunk(inputs), strict=True):
            values = [prediction["prediction"]]
            if "probabilities" in prediction:
                values.append(f"{max(prediction['probabilities'].values()):.4f}")
            writer.writerow([*row, *values])


def _print_json(
    arguments: argparse.Namespace,
    estimator: Any,
    predict_chunk: Callable[[list[Any]], list[dict[str, Any]]],
    chunks: Iterator[tuple[list[Any], list[list[Any]]]],
) -> None:
    predictions = []
    for inputs, rows in chunks:
        entries = predict_chunk(inputs)
        attention = [_attention(estimator, each) for each in inputs] if arguments.attention else [{}] * len(inputs)
        for given, row, entry, weights in zip(inputs, rows, entries, attention, strict=True):
            origin = {"text": given} if isinstance(given, str) else {"series": row[0]}
            predictions.append({**origin, **entry, **weights})
    _print_document(arguments, estimator, predictions)


def _print_document(arguments: argparse.Namespace, estimator: Any, predictions: list[dict[str, Any]]) -> None:
    document = {
        "schema_version": SCHEMA,
        "model": str(arguments.model),
        "estimator": type(estimator).__name__,
        "predictions": predictions,
    }
    print(json.dumps(document, indent=1, allow_nan=False))


def predict(estimator: Any, inputs: list[Any]) -> list[dict[str, Any]]:
    """Return the prediction for each input, ready for JSON."""
    if not hasattr(estimator, "predict_proba"):
        predictions = estimator.predict(inputs)
        values = predictions if isinstance(predictions, list) else predictions.tolist()
        return [{"prediction": value} for value in values]
    classes = [str(name) for name in estimator.classes_]
    return [
        {"prediction": classes[int(row.argmax())], "probabilities": dict(zip(classes, row.tolist(), strict=True))}
        for row in estimator.predict_proba(inputs)
    ]


def _attention(estimator: Any, given: Any) -> dict[str, Any]:
    """Return the tokens of one input, and the weights of each layer on them."""
    maps = estimator.attention([given])
    layers = {}
    for name, each in maps.items():
        tokens = None if each.tokens is None else [list(part) for part in each.tokens]
        layers[name] = {"tokens": tokens, "weights": each.weights()[0].tolist()}
    return {"attention": layers}
