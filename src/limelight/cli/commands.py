"""The commands. Heavy packages are imported here, when a command runs."""

import argparse
import contextlib
import importlib.util
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from limelight import _backend
from limelight._formatting import METRICS, Metric, format_value
from limelight._progress import Interruption, Progress, make_printable
from limelight.cli import comparing, explaining, prediction, serving, show
from limelight.exceptions import UsageError
from limelight.study.settings import resolve_settings

BACKENDS = ("jax", "tensorflow", "torch")
# The commands on saved models. Each has `check(arguments)`, before Keras is loaded, and `run(arguments, interruption)`.
_ON_MODELS: dict[str, Any] = {
    "predict": prediction,
    "explain": explaining,
    "compare": comparing,
    "show": show,
    "serve": serving,
}


class BelowRequirement(Exception):
    """The study succeeded with an accuracy below `--require-accuracy`."""


def run(arguments: argparse.Namespace, interruption: Interruption) -> None:
    """Run the parsed command."""
    if (command := _ON_MODELS.get(arguments.command)) is not None:
        command.check(arguments)
        _check_backend()
        _load_keras()
        with contextlib.suppress(BrokenPipeError):
            command.run(arguments, interruption)
        return
    settings = resolve_settings(arguments.flags, os.environ, arguments.config or os.environ.get("LIMELIGHT_CONFIG"))
    _check_backend()
    from limelight.study.setup import prepare

    # Errors in the data are reported before Keras is loaded, which takes seconds.
    setup = prepare(settings, arguments.fresh)
    _load_keras()
    from limelight.study import job

    with Progress(arguments.quiet, interruption) as progress:
        results, path = job.run(setup, fresh=arguments.fresh, progress=progress)
    # The required accuracy is checked even if the reader closed the pipe.
    with contextlib.suppress(BrokenPipeError):
        _print_results(results, path, arguments)
    if settings.require_accuracy is None:
        return
    accuracy = results["models"][0]["metrics"]["accuracy"]["value"]
    if accuracy < settings.require_accuracy:
        raise BelowRequirement(
            f"The attention model's mean test accuracy is {100 * accuracy:.1f} %, below the required "
            f"{100 * settings.require_accuracy:g} %."
        )


def _print_results(results: dict[str, Any], path: Path, arguments: argparse.Namespace) -> None:
    """Print the results as JSON, or in a few lines."""
    if arguments.json:
        import json

        print(json.dumps(results, indent=1, allow_nan=False))
        return
    for line in [] if arguments.quiet else _summarize(results):
        print(make_printable(line))
    print(make_printable(f"Report: {path}"))


def _summarize(results: dict[str, Any]) -> Iterator[str]:
    """Yield the lines of a table of the models, with the metric of the verdict, and the verdict."""
    # Imbalanced classes are compared by another metric, but everybody looks for the accuracy.
    first = ["accuracy"] if all("accuracy" in model["metrics"] for model in results["models"]) else []
    names = dict.fromkeys([*first, *(each["metric"] for each in results["comparisons"])])
    headings = {name: f"{METRICS[name].label} (95 % interval)" for name in names}
    width = max(len(model["title"]) for model in results["models"])
    yield "   ".join([" " * width, *(f"{heading:25}" for heading in headings.values()), "seeds"])
    for model in results["models"]:
        values = [
            f"{_format_estimate(model['metrics'][name], METRICS[name]):{max(25, len(heading))}}"
            for name, heading in headings.items()
        ]
        yield "   ".join([f"{model['title']:{width}}", *values, f"{len(model['runs']):5}"])
    yield ""
    compared = {entry.get("sentence") for entry in results["comparisons"]}
    headline = next((sentence for sentence in results["verdict"] if sentence in compared), None)
    yield from (f"{results['answer']} {each}" if each == headline else each for each in results["verdict"])
    yield from (caveat for caveat in results["caveats"] if not any(caveat in each for each in results["verdict"]))
    # The answer to the second question; the sentences that it follows from are in the report.
    yield from (results.get("explanation") or {}).get("verdict", [])[:1]
    yield ""


def _format_estimate(estimate: dict[str, Any], metric: Metric) -> str:
    """Return a value and its interval, if it has one."""
    value, low, high = (format_value(estimate[key], metric, unit=False) for key in ("value", "low", "high"))
    interval = "" if estimate["low"] is None else f" ({low} to {high})"
    return f"{value} %{interval}" if metric.percent else f"{value}{interval}"


def _check_backend() -> None:
    """Check that the backend can be used.

    Raises:
        UsageError: `KERAS_BACKEND` is not a backend that can train.
        ImportError: no backend is installed, or the chosen one is not.
    """
    name = _backend.require()
    if name not in BACKENDS:
        raise UsageError(f"KERAS_BACKEND must be one of {', '.join(BACKENDS)}. Received: {name!r}.")
    if importlib.util.find_spec(name) is None:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def _load_keras() -> None:
    """Import Keras without TensorFlow if that is not the backend, and without TensorFlow's startup messages if it is.

    Keras imports TensorFlow whenever it is installed, only to seed it, which takes seconds and 300 MB.
    """
    if _backend.require() == "tensorflow":
        # Some messages are printed before TensorFlow reads its log level.
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
        with _suppress_stderr():
            import keras  # noqa: F401
    else:
        # Python treats None as a package that is not installed.
        sys.modules.setdefault("tensorflow", None)  # pyright: ignore[reportArgumentType]


@contextlib.contextmanager
def _suppress_stderr() -> Iterator[None]:
    """Discard what native code writes to stderr."""
    import tempfile

    sys.stderr.flush()
    stderr = os.dup(2)
    with tempfile.TemporaryFile() as sink:
        os.dup2(sink.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(stderr, 2)
            os.close(stderr)
