"""Signals raise one exception that no library can suppress, and the previous handlers are restored."""

import contextlib
import os
import signal
import subprocess
import sys
import textwrap

import pytest

from limelight._progress import Interrupted, Interruption, Progress

pytestmark = pytest.mark.backend_free


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_is_an_exception_with_its_exit_code(signum, code):
    previous = signal.getsignal(signum)
    with pytest.raises(Interrupted) as caught, Interruption():
        os.kill(os.getpid(), signum)
    assert caught.value.exit_code == code
    assert signal.getsignal(signum) is previous


def test_a_suppressed_signal_is_raised_again_at_the_next_step():
    with Interruption() as interruption:
        interruption.check()
        with contextlib.suppress(KeyboardInterrupt):  # as in a callback that catches everything
            os.kill(os.getpid(), signal.SIGINT)
        progress = Progress(quiet=True, interruption=interruption)
        with pytest.raises(Interrupted):
            progress.step()


@pytest.mark.subprocess
def test_a_second_signal_ends_the_process_at_once():
    program = textwrap.dedent("""
        import os, signal
        from limelight._progress import Interruption

        with Interruption():
            for _ in range(2):
                try:
                    os.kill(os.getpid(), signal.SIGINT)
                except KeyboardInterrupt:
                    print("first", flush=True)
        print("not reached")
    """)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (130, "first\n")
