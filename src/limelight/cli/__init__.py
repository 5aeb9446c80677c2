"""The command line: `limelight`, and `python -m limelight`.

Nothing but the standard library is imported before a command runs, so that `limelight --help` answers at once.
"""

import io
import sys
from collections.abc import Sequence

from limelight.cli import commands, failures, parsing
from limelight.study.interruption import Interrupted, Interruption
from limelight.study.progress import silence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code.

    0 is success, 1 a bug of limelight, 2 wrong usage, 3 bad data or a file that cannot be read or written, 4 a result below
    what was required, 130 and 143 an interruption. What a user can mend is one line on stderr; a bug shows its traceback.

    Args:
        arguments: What follows the program's name; those of the process when not given.

    Example:
        >>> main(["--version"])
        limelight 0.1.0
        0
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # Names out of the user's data must not end a command on a terminal that cannot show them.
            stream.reconfigure(errors="replace")
    with Interruption() as interruption:
        try:
            commands.run(parsing.parse(sys.argv[1:] if arguments is None else arguments), interruption)
            code = failures.OK
        except BaseException as error:
            # Libraries turn an interruption into errors of their own, such as a failed import.
            received = interruption.received
            code = _fail(error if received is None else Interrupted(received))
    try:
        sys.stdout.flush()
    except OSError as error:
        silence(sys.stdout)
        # Whoever read a pipe has seen enough; a file on a full disk lacks what was asked for.
        if code == failures.OK and not isinstance(error, BrokenPipeError):
            code = _fail(error)
    return code


def _fail(error: BaseException) -> int:
    """Say what went wrong and return the exit code."""
    code, line = failures.explain(error)
    try:
        if code == failures.BUG:
            import traceback

            traceback.print_exception(error)
        if line:
            print(f"limelight: {line}", file=sys.stderr, flush=True)
    except OSError:
        silence(sys.stderr)
    return code
