"""What a study tells while it runs: a bar with the time left on a terminal, and a line for each run."""

import os
import sys
from types import TracebackType
from typing import Any, TextIO

from limelight.study.interruption import Interruption


class Progress:
    """Lines and a bar on stderr, so that stdout holds results alone.

    The bar is drawn on a terminal only, without colours where `NO_COLOR` is set.

    Args:
        quiet: Say nothing.
        interruption: Checked at each step.

    Example:
        >>> with Progress(quiet=True) as progress:
        ...     progress.begin("attention, seed 1", 100)
        ...     progress.step(1)
        ...     progress.end("attention, seed 1: 1 epoch")
    """

    def __init__(self, quiet: bool = False, interruption: Interruption | None = None) -> None:
        self.quiet = quiet
        self.interruption = interruption
        self._bar: Any = None
        self._task: Any = None
        self._planned = self._taken = 0
        if not quiet and sys.stderr.isatty():
            self._bar = _bar()

    def __enter__(self) -> "Progress":
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.stop()

    def plan(self, steps: int) -> None:
        """Say how many steps all runs take at most. The time left is reckoned from it."""
        if self._bar is not None:
            self._task = self._bar.add_task("", total=steps)

    def say(self, line: str) -> None:
        """Print a line."""
        if self.quiet:
            return
        if self._bar is not None:
            # Names come from the user's data: no markup, no highlighting.
            self._bar.console.print(line, markup=False, highlight=False, soft_wrap=True)
        else:
            try:
                print(line, file=sys.stderr, flush=True)
            except BrokenPipeError:
                # Whoever read this has seen enough. The study goes on.
                self.quiet = True
                silence(sys.stderr)

    def begin(self, name: str, steps: int) -> None:
        """Say that a run begins that takes so many steps at most."""
        self._planned, self._taken = steps, 0
        if self._task is not None:
            self._bar.update(self._task, description=name)

    def step(self, steps: int) -> None:
        """Count steps of the run.

        Raises:
            Interrupted: Ctrl-C or SIGTERM came, and was not heard where it came.
        """
        if self.interruption is not None:
            self.interruption.check()
        self._taken += steps
        if self._task is not None:
            self._bar.advance(self._task, steps)

    def end(self, line: str) -> None:
        """Say in a line how a run ended, and take what it left over of its steps out of what is to come."""
        if self._task is not None:
            left = self._planned - self._taken
            self._bar.update(self._task, total=self._bar.tasks[0].total - left)
        self._planned = self._taken = 0
        self.say(line)


def silence(stream: TextIO) -> None:
    """Let what a stream that cannot be written to still holds go nowhere: Python would complain when it ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _bar() -> Any:
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
