"""The command line: `limelight`, and `python -m limelight`.

Heavy packages are imported only when a command runs, so that `limelight --help` answers at once.
"""

import errno
import sys
from collections.abc import Sequence

from limelight._progress import Interrupted, Interruption, make_printable, redirect_to_devnull
from limelight.cli import commands, parsing, streams
from limelight.exceptions import DataError, TrainingError, UsageError

OK, BUG, USAGE, BAD_INPUT, BELOW_REQUIREMENT, INTERRUPTED = 0, 1, 2, 3, 4, 130

# A full disk, quota or file-size limit.
_NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
# The extra that installs each package.
_EXTRAS = {
    "jax": "jax",
    "tensorflow": "tensorflow",
    "torch": "torch",
    **dict.fromkeys(("starlette", "uvicorn"), "serve"),
    **dict.fromkeys(("jiwer", "matplotlib", "pyarrow", "rich", "sacrebleu", "scipy", "sklearn", "tokenizers"), "study"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code.

    0 is success, 1 a bug of limelight, 2 wrong usage, 3 bad data or a file that cannot be read or written, 4 a result below
    the required one, 130 and 143 an interruption. Errors that a user can correct are one line on stderr; a bug prints its
    traceback.

    Args:
        arguments: The arguments after the program's name; by default those of the process.

    Example:
        >>> main(["--version"])
        limelight 0.1.0
        0
    """
    streams.prepare()
    with Interruption() as interruption:
        try:
            commands.run(parsing.parse(sys.argv[1:] if arguments is None else arguments), interruption)
            code = OK
        except BaseException as error:
            # Libraries turn an interruption into errors of their own, such as a failed import.
            signum = interruption.received
            code = _report_error(error if signum is None else Interrupted(signum))
    try:
        sys.stdout.flush()
    except OSError as error:
        redirect_to_devnull(sys.stdout)
        # A closed pipe is no error: the reader has read enough.
        if code == OK and not isinstance(error, BrokenPipeError):
            code = _report_error(error)
    return code


def _report_error(error: BaseException) -> int:
    """Print an error, and return the exit code."""
    code, message = _explain(error)
    # The message may contain the user's data: keep it on one line, without control characters.
    line = make_printable(" ".join(message.split()))
    try:
        if code == BUG:
            import traceback

            traceback.print_exception(error)
        if line:
            print(f"limelight: {line}", file=sys.stderr, flush=True)
    except OSError:
        redirect_to_devnull(sys.stderr)
    return code


def _explain(error: BaseException) -> tuple[int, str]:
    """Return the exit code for an error, and a message that says what to do; the message is empty if none is needed."""
    match error:
        case SystemExit():
            return (error.code if isinstance(error.code, int) else OK), ""
        case KeyboardInterrupt():
            code = error.exit_code if isinstance(error, Interrupted) else INTERRUPTED
            return code, "Interrupted. Finished runs are kept. Run the same command to continue."
        case UsageError():
            return USAGE, str(error)
        case DataError() | TrainingError():
            return BAD_INPUT, str(error)
        case commands.BelowRequirement():
            return BELOW_REQUIREMENT, str(error)
        case BrokenPipeError():
            return OK, ""
        case OSError() if error.errno in _NO_SPACE:
            target = f" for {error.filename}" if error.filename else ""
            return (
                BAD_INPUT,
                f"No space left{target}. Finished runs are kept. Free some space and run the same command to continue.",
            )
        case OSError() if error.strerror:
            target = f"{error.filename}: " if error.filename else ""
            return BAD_INPUT, f"{target}{error.strerror}."
        case ModuleNotFoundError() if (package := (error.name or "").partition(".")[0]) in _EXTRAS:
            return USAGE, f"{package} is not installed. Run: pip install 'limelight[{_EXTRAS[package]}]'"
        case ImportError() if "pip install" in str(error):
            return USAGE, str(error)
        case MemoryError():
            return BAD_INPUT, "Out of memory. Lower --batch-size, --length or --vocabulary."
    return BUG, "This is a bug in limelight. Please report it with the lines above."
