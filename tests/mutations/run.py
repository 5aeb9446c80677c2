"""Plant faults in the source, one at a time, and check that the tests catch each.

    python tests/mutations/run.py              every fault
    python tests/mutations/run.py 3 7          some of them, by number

Each fault of `faults.py` is planted in a copy of the repository, where the tests that it names run: a part of what `make test`
runs, so a fault that is caught here is caught there. The exit status is the number of faults that nothing caught.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from faults import FAULTS, Fault

ROOT = Path(__file__).resolve().parents[2]
COPIED = ("src", "tests", "pyproject.toml", "README.md", "docs", "examples")
FAILED = 1  # pytest's exit status where tests ran and some failed; anything else is an error of the run itself


def main() -> None:
    chosen = {int(number) for number in sys.argv[1:]} or set(range(1, len(FAULTS) + 1))
    missed = 0
    for number, fault in enumerate(FAULTS, start=1):
        if number in chosen:
            start = time.perf_counter()
            caught = check(fault)
            missed += not caught
            seconds = time.perf_counter() - start
            print(f"{number:2} {'caught' if caught else 'MISSED'} in {seconds:3.0f} s: {fault.title}", flush=True)
    print(f"{len(chosen) - missed} of {len(chosen)} faults caught")
    sys.exit(missed)


def check(fault: Fault) -> bool:
    """Return True if the tests fail with a fault planted."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder)
        for name in COPIED:
            source = ROOT / name
            if source.is_dir():
                shutil.copytree(source, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy2(source, copy / name)
        plant(fault, copy)
        return any(run(fault, backend, copy) for backend in fault.backends)


def plant(fault: Fault, copy: Path) -> None:
    """Replace the one place that a fault names."""
    path = copy / "src" / "limelight" / fault.module
    text = path.read_text(encoding="utf-8")
    if text.count(fault.before) != 1:
        sys.exit(
            f"A fault must name one place. Received: {fault.title!r}, whose text is found {text.count(fault.before)} times in "
            f"{fault.module}. Adapt tests/mutations/faults.py to the source."
        )
    path.write_text(text.replace(fault.before, fault.after), encoding="utf-8")


def run(fault: Fault, backend: str, copy: Path) -> bool:
    """Return True if a test fails on a backend."""
    cache = ROOT / ".pytest_cache" / "jax"
    environment = {
        **os.environ,
        "KERAS_BACKEND": backend,
        "PYTHONPATH": str(copy / "src"),
        "JAX_COMPILATION_CACHE_DIR": str(cache),
    }
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *fault.tests]
    done = subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True)
    if done.returncode not in (0, FAILED):
        sys.exit(f"The tests of {fault.title!r} could not run:\n{done.stdout[-3000:]}{done.stderr[-3000:]}")
    return done.returncode == FAILED


if __name__ == "__main__":
    main()
