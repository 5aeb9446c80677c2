"""What an error means for whoever typed the command: an exit code, and one line."""

import errno

from limelight.data.errors import DataError
from limelight.study.errors import StudyError
from limelight.study.interruption import Interrupted

OK, BUG, USAGE, BAD_INPUT, INTERRUPTED = 0, 1, 2, 3, 130

# What the kernel says when a disk, a quota or a limit is full.
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_EXTRAS = {
    "jax": "jax",
    "tensorflow": "tensorflow",
    "torch": "torch",
    **dict.fromkeys(("matplotlib", "pyarrow", "rich", "scipy", "sklearn", "tokenizers"), "study"),
}


def explain(error: BaseException) -> tuple[int, str]:
    """Return the exit code for an error, and the line that says what to do; the line is empty where all has been said."""
    code, line = _explain(error)
    # Text from the user's data may stand in it: it stays one line, and cannot steer a terminal.
    return code, "".join(letter if letter.isprintable() else "\ufffd" for letter in " ".join(line.split()))


def _explain(error: BaseException) -> tuple[int, str]:
    match error:
        case SystemExit():
            return (error.code if isinstance(error.code, int) else OK), ""
        case KeyboardInterrupt():
            code = error.exit_code if isinstance(error, Interrupted) else INTERRUPTED
            return code, "interrupted. Finished runs are kept: the same command goes on."
        case StudyError():
            return error.exit_code, str(error)
        case BrokenPipeError():
            return OK, ""
        case DataError():
            return BAD_INPUT, str(error)
        case OSError() if error.errno in _NO_ROOM:
            where = f" for {error.filename}" if error.filename else ""
            return (
                BAD_INPUT,
                f"no room is left{where}. Finished runs are kept: make room, and the same command goes on.",
            )
        case OSError() if error.strerror:
            where = f"{error.filename}: " if error.filename else ""
            return BAD_INPUT, f"{where}{error.strerror}."
        case ModuleNotFoundError() if (root := (error.name or "").partition(".")[0]) in _EXTRAS:
            return USAGE, f"{root} is needed and not installed. Run: pip install 'limelight[{_EXTRAS[root]}]'"
        case ImportError() if "pip install" in str(error):
            return USAGE, str(error)
        case MemoryError():
            return BAD_INPUT, "memory ran out. Lower --batch-size, --length or --vocabulary."
    return BUG, "this is a bug of limelight. Please report it with the lines above."
