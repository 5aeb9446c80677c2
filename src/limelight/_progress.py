"""Progress on stderr, and interruptions by Ctrl-C or SIGTERM."""

import os
import signal
import sys
from types import FrameType, TracebackType
from typing import Any, TextIO


class Interrupted(KeyboardInterrupt):
    """The process received SIGINT or SIGTERM. `exit_code` is 128 plus the signal's number, as shells expect."""

    def __init__(self, signum: int) -> None:
        super().__init__(signal.Signals(signum).name)
        self.exit_code = 128 + signum


class Interruption:
    """Raise `Interrupted` on SIGINT and SIGTERM inside a `with` block.

    An exception raised by a signal handler is lost if the signal arrives in a library's callback that catches everything;
    `check`, called at each training step, raises it again. A second signal ends the process at once: all files are written
    atomically, so none is damaged.

    Example:
        >>> with Interruption() as interruption:
        ...     interruption.check()
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._previous: dict[int, signal._HANDLER] = {}

    def __enter__(self) -> "Interruption":
        for signum in (signal.SIGINT, signal.SIGTERM):
            self._previous[signum] = signal.signal(signum, self._handle)
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        for signum, handler in self._previous.items():
            signal.signal(signum, handler)

    def check(self) -> None:
        """Raise if a signal was received.

        Raises:
            Interrupted: SIGINT or SIGTERM was received.
        """
        if self.received is not None:
            raise Interrupted(self.received)

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        if self.received is not None:
            if sys.stderr.isatty():
                os.write(2, b"\x1b[?25h\n")  # show the cursor, which the progress bar hides
            os._exit(128 + signum)
        self.received = signum
        raise Interrupted(signum)


class Progress:
    """Print lines and a progress bar to stderr, so that stdout holds results only.

    The bar is shown on a terminal only, without colours if `NO_COLOR` is set. Inside the block of another one that shows a bar,
    none is shown: there is one line at most.

    Args:
        quiet: Print nothing.
        interruption: Checked at each step.

    Example:
        >>> with Progress(quiet=True) as progress:
        ...     progress.start_run("attention, seed 1", 100)
        ...     progress.step()
        ...     progress.finish_run("attention-seed1: 1 epoch")
    """

    _is_shown = False  # of all instances together

    def __init__(self, quiet: bool = False, interruption: Interruption | None = None) -> None:
        self.quiet = quiet
        self.interruption = interruption
        self._bar: Any = None
        self._task: Any = None
        self._remaining = 0
        if not quiet and sys.stderr.isatty():
            self._bar = _create_bar()

    def __enter__(self) -> "Progress":
        if Progress._is_shown:
            self._bar = None
        if self._bar is not None:
            self._bar.start()
            Progress._is_shown = True
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.stop()
            Progress._is_shown = False

    def set_total(self, steps: int) -> None:
        """Set the maximum number of steps of all runs, from which the remaining time is estimated."""
        if self._bar is not None:
            if self._task is not None:
                self._bar.remove_task(self._task)
            self._task = self._bar.add_task("", total=steps)

    def write(self, line: str) -> None:
        """Print a line."""
        if self.quiet:
            return
        line = make_printable(line)
        if self._bar is not None:
            # The line may contain the user's data: no markup, no highlighting.
            self._bar.console.print(line, markup=False, highlight=False, soft_wrap=True)
        else:
            try:
                print(line, file=sys.stderr, flush=True)
            except BrokenPipeError:
                # The reader closed the pipe, as `head` does. The study continues.
                self.quiet = True
                redirect_to_devnull(sys.stderr)

    def start_run(self, name: str, steps: int) -> None:
        """Show the name of a run, which takes at most `steps` steps."""
        self._remaining = steps
        if self._task is not None:
            self._bar.update(self._task, description=name)

    def step(self, steps: int = 1) -> None:
        """Count steps of the current run.

        Raises:
            Interrupted: Ctrl-C or SIGTERM was received, and its exception was lost.
        """
        if self.interruption is not None:
            self.interruption.check()
        self._remaining -= steps
        if self._task is not None:
            self._bar.advance(self._task, steps)

    def finish_run(self, line: str) -> None:
        """Print how a run ended, and subtract the steps that it did not need from the total."""
        if self._task is not None:
            self._bar.update(self._task, total=self._bar.tasks[0].total - self._remaining)
        self._remaining = 0
        self.write(line)


def make_printable(line: str) -> str:
    """Replace the control characters of a line, which may hold the user's data, so that they cannot control the terminal.

    Example:
        >>> make_printable("a\\x1b[31mb\\u202e")
        'a\ufffd[31mb\ufffd'
    """
    return "".join(character if character.isprintable() else "\ufffd" for character in line)


def redirect_to_devnull(stream: TextIO) -> None:
    """Discard the buffer of a broken stream, which Python would otherwise fail to flush at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _create_bar() -> Any:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        Progress,
        TaskProgressColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=None),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TextColumn("at most"),
        TimeRemainingColumn(),
        TextColumn("left"),
        console=Console(stderr=True),
        transient=True,
    )
