"""Lines are printed to stderr, and a bar on a terminal only."""

import os
import pty
import subprocess
import sys
import textwrap

import pytest

from limelight.study import Progress

pytestmark = pytest.mark.backend_free

PROGRAM = textwrap.dedent("""
    from limelight.study import Progress

    with Progress() as progress:
        progress.set_total(20)
        progress.start_run("attention, seed 1 of 2", 10)
        progress.step(4)
        progress.finish_run("attention-seed1: 4 of [bold]10[/bold] steps")
        progress.start_run("attention, seed 2 of 2", 10)
        progress.step(10)
        progress.finish_run("attention-seed2: done")
    print("result")
""")


INNER = """    with Progress() as inner:
        inner.set_total(3)
        inner.start_run("decoding", 3)
        inner.step(3)
"""
NESTED = PROGRAM.replace("    progress.step(10)\n", INNER + "    progress.step(10)\n")


def run_on_a_terminal(program=PROGRAM, **environment):
    """Run a program with a terminal as its stderr, and return its output there."""
    parent, child = pty.openpty()
    variables = {key: value for key, value in os.environ.items() if key != "NO_COLOR"}
    done = subprocess.run(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        stderr=child,
        text=True,
        env={**variables, "TERM": "xterm-256color", "COLUMNS": "100", **environment},
    )
    os.close(child)
    written = b""
    # When a terminal has no writer left, Linux raises EIO and others return nothing.
    try:
        while piece := os.read(parent, 4096):
            written += piece
    except OSError:
        pass
    os.close(parent)
    assert (done.returncode, done.stdout) == (0, "result\n")
    return written.decode()


@pytest.mark.subprocess
def test_a_bar_inside_another_is_not_shown():
    assert INNER in NESTED
    written = run_on_a_terminal(NESTED)
    assert "attention, seed 2 of 2" in written
    assert "decoding" not in written


@pytest.mark.subprocess
def test_a_terminal_shows_a_bar_and_the_lines():
    written = run_on_a_terminal()
    assert "attention-seed1: 4 of [bold]10[/bold] steps" in written
    assert "━" in written
    assert "attention, seed 2 of 2" in written
    # The six steps that the first run did not need are subtracted from the total.
    assert "100%" in written
    assert "\x1b[3" in written  # colours


@pytest.mark.subprocess
def test_no_color():
    written = run_on_a_terminal(NO_COLOR="1")
    assert "━" in written
    assert "\x1b[3" not in written


def test_without_a_terminal_there_are_only_lines(capsys):
    with Progress() as progress:
        progress.set_total(20)
        progress.start_run("attention, seed 1", 10)
        progress.step(10)
        progress.finish_run("attention-seed1: done")
    assert capsys.readouterr() == ("", "attention-seed1: done\n")


def test_quiet_prints_nothing(capsys):
    with Progress(quiet=True) as progress:
        progress.write("a line")
        progress.finish_run("another")
    assert capsys.readouterr() == ("", "")
