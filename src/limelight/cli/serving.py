"""The command `limelight serve`: a local page on which one types a text and sees prediction and attention."""

import argparse
import contextlib
import os
import signal
import sys
import warnings
from collections.abc import Iterator
from typing import Any

from limelight._progress import Interruption
from limelight.exceptions import UsageError

_EPILOG = """\
examples:
  limelight serve limelight-study/movie-reviews/model.keras
  limelight serve model.keras --port 0
"""


def add_parser(commands: Any) -> None:
    """Add the command to the parser of the command line."""
    parser = commands.add_parser(
        "serve",
        help="open a local page on which to try a model: type a text, forbid words, silence heads",
        description="Serve a page on which one types a text and sees the prediction and attention of MODEL at once.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "model", metavar="MODEL", help="a .keras file of an estimator of texts, such as OUT/model.keras of a study"
    )
    parser.add_argument(
        "--port", type=int, default=8765, metavar="N", help="the port; 0 for any free one (default: 8765)"
    )
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        metavar="ADDRESS",
        help="the address to listen on; visitors from other machines need the token that is printed (default: 127.0.0.1)",
    )


def check(arguments: argparse.Namespace) -> None:
    """Raise for a port that does not exist, and if a package is missing, before Keras is loaded.

    Raises:
        UsageError: There is no such port.
        ModuleNotFoundError: Starlette or uvicorn is not installed.
    """
    if not 0 <= arguments.port <= 65535:
        raise UsageError(f"--port must be from 0 to 65535. Received: {arguments.port}.")
    import starlette  # noqa: F401
    import uvicorn  # noqa: F401


def run(arguments: argparse.Namespace, interruption: Interruption) -> None:
    """Serve until Ctrl-C, which is the usual end."""
    from limelight import server
    from limelight.models import load
    from limelight.models.inputs import CutWarning

    estimator = load(arguments.model)
    # The page says it of each text.
    warnings.simplefilter("ignore", CutWarning)
    try:
        with _ignore_repeated_signals():
            server.serve(estimator, host=arguments.host, port=arguments.port, on_start=_announce)
    except ValueError as error:
        raise UsageError(str(error)) from error
    except OSError as error:
        # Python adds the address to the message.
        reason = os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)
        raise UsageError(
            f"The server cannot listen on {arguments.host}, port {arguments.port}: {reason}. Try --port 0, which takes a free "
            "port."
        ) from error
    print("Stopped.", file=sys.stderr)


@contextlib.contextmanager
def _ignore_repeated_signals() -> Iterator[None]:
    """Ignore the signals that uvicorn handles and raises once more after it has stopped."""
    previous = {signum: signal.signal(signum, lambda *_: None) for signum in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for signum, handler in previous.items():
            signal.signal(signum, handler)


def _announce(address: str) -> None:
    print(f"Open {address} in a browser. Ctrl-C stops.", flush=True)
