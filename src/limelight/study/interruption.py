"""Ctrl-C and SIGTERM, taken as one exception that nothing swallows."""

import os
import signal
import sys
from types import FrameType, TracebackType


class Interrupted(KeyboardInterrupt):
    """The process was asked to end. `exit_code` is what shells expect of it: 128 and the signal's number."""

    def __init__(self, signum: int) -> None:
        super().__init__(signal.Signals(signum).name)
        self.exit_code = 128 + signum


class Interruption:
    """Turns SIGINT and SIGTERM into `Interrupted` for the length of a `with` block.

    An exception out of a signal handler can come while a library runs a callback that lets none through, and be lost; so
    `check`, called at each step of the work, raises it again. A second signal ends the process at once: every file is
    whole at any time.

    Example:
        >>> with Interruption() as interruption:
        ...     interruption.check()
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._before: dict[int, signal._HANDLER] = {}

    def __enter__(self) -> "Interruption":
        for signum in (signal.SIGINT, signal.SIGTERM):
            self._before[signum] = signal.signal(signum, self._handle)
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        for signum, handler in self._before.items():
            signal.signal(signum, handler)

    def check(self) -> None:
        """Raise `Interrupted` where a signal came.

        Raises:
            Interrupted: SIGINT or SIGTERM was received.
        """
        if self.received is not None:
            raise Interrupted(self.received)

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        if self.received is not None:
            if sys.stderr.isatty():
                os.write(2, b"\x1b[?25h\n")  # the progress bar hides the cursor
            os._exit(128 + signum)
        self.received = signum
        raise Interrupted(signum)
