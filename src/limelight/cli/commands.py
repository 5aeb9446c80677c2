"""What each command does. Heavy imports happen here, when a command runs."""

import argparse
import contextlib
import importlib.util
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from limelight import _backend
from limelight.study.errors import QualityError, UsageError
from limelight.study.interruption import Interruption
from limelight.study.progress import Progress
from limelight.study.settings import resolve

BACKENDS = ("jax", "tensorflow", "torch")


def run(arguments: argparse.Namespace, interruption: Interruption) -> None:
    """Run the command that was typed."""
    _study(arguments, interruption)


def _study(arguments: argparse.Namespace, interruption: Interruption) -> None:
    settings = resolve(arguments.flags, os.environ, arguments.config or os.environ.get("LIMELIGHT_CONFIG"))
    _check_backend()
    from limelight.study.setup import prepare

    # Bad data end the command before Keras is loaded, which takes seconds.
    prepared = prepare(settings, arguments.fresh)
    _load_keras()
    from limelight.study import job

    with Progress(arguments.quiet, interruption) as progress:
        results, path = job.run(settings, prepared, fresh=arguments.fresh, progress=progress)
    # Who reads no further than the first lines of a pipe still asks for a quality.
    with contextlib.suppress(BrokenPipeError):
        _print(results, path, arguments)
    accuracy = results["models"][0]["metrics"]["accuracy"]["value"]
    if settings.require_accuracy is not None and accuracy < settings.require_accuracy:
        raise QualityError(
            f"the attention model's mean test accuracy is {100 * accuracy:.1f} %, below the required "
            f"{100 * settings.require_accuracy:g} %."
        )


def _print(results: dict[str, Any], path: Path, arguments: argparse.Namespace) -> None:
    """Print the results as JSON, or in a few lines."""
    if arguments.json:
        import json

        print(json.dumps(results, indent=1, allow_nan=False))
        return
    for line in [] if arguments.quiet else _lines(results):
        print(line)
    print(f"Report: {path}")


def _lines(results: dict[str, Any]) -> Iterator[str]:
    """Say in a few lines what was found."""
    width = max(len(model["title"]) for model in results["models"])
    yield f"{'':{width}}   accuracy (95 % interval)   log loss    seeds"
    for model in results["models"]:
        accuracy, loss = model["metrics"]["accuracy"], model["metrics"]["log_loss"]
        ends = f"({100 * accuracy['low']:.1f} to {100 * accuracy['high']:.1f})" if accuracy["low"] is not None else ""
        yield (
            f"{model['title']:{width}}   {100 * accuracy['value']:5.1f} % {ends:<18}   {loss['value']:8.3f}   "
            f"{len(model['runs']):>6}"
        )
    yield ""
    yield from results["verdict"]
    yield ""


def _check_backend() -> None:
    """Raise where the chosen backend cannot be used.

    Raises:
        UsageError: `KERAS_BACKEND` names no backend that can train.
        ImportError: no backend is installed, or the chosen one is not.
    """
    name = _backend.require()
    if name not in BACKENDS:
        raise UsageError(f"KERAS_BACKEND must be one of {', '.join(BACKENDS)}. Received: {name!r}.")
    if importlib.util.find_spec(name) is None:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def _load_keras() -> None:
    """Import Keras without TensorFlow, where that is not the backend, and without its greetings, where it is.

    Keras imports TensorFlow wherever it is installed, if only to seed it: seconds, and 300 MB.
    """
    if _backend.require() == "tensorflow":
        # TensorFlow greets before its own log level is read.
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
        with _silent_stderr():
            import keras  # noqa: F401
    else:
        # What Python and importlib take for a package that is not there.
        sys.modules.setdefault("tensorflow", None)  # pyright: ignore[reportArgumentType]


@contextlib.contextmanager
def _silent_stderr() -> Iterator[None]:
    """Keep what native code writes to stderr off the terminal, unless the block fails."""
    import tempfile

    sys.stderr.flush()
    before = os.dup(2)
    with tempfile.TemporaryFile() as kept:
        os.dup2(kept.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(before, 2)
            os.close(before)
