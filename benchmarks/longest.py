"""The longest input that a given memory holds, in each way of a work.

    python benchmarks/longest.py --memory 4 --only jax

Lengths are doubled until one takes more memory than is given, or more time, or the longest that is asked has been reached. A
process that goes beyond its memory is ended. Memory is that of the whole process, libraries included.
"""

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

import works

HERE = Path(__file__).parent
WAYS = {
    "jax": ("limelight", "limelight training", "keras", "keras training"),
    "tensorflow": ("limelight", "limelight training", "keras", "keras training"),
    "torch": ("limelight", "limelight training", "keras", "keras training", "limelight sparsemax"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--memory", type=float, default=4.0, help="GiB for a process (default: 4)")
    parser.add_argument("--seconds", type=float, default=60.0, help="for one length, compiling included (default: 60)")
    parser.add_argument("--longest", type=int, default=1 << 17, help="where to stop (default: 131,072)")
    parser.add_argument("--only", nargs="+", choices=works.BACKENDS, default=works.BACKENDS)
    parser.add_argument("--run", nargs=2, metavar=("WAY", "LENGTH"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run:
        once(options.run[0], int(options.run[1]))
        return
    print("One example of one head of 64, float32, causal.\n\n| backend | way | longest | MB | s | why no longer |")
    print("|---|---|---|---|---|---|")
    for backend in options.only:
        for way in WAYS[backend]:
            print(f"| {backend} | {way} | {longest(backend, way, options)} |", flush=True)


def longest(backend: str, way: str, options: argparse.Namespace) -> str:
    """Return the table cells of a way: the longest length, its memory and time, and what ended the search."""
    length, best = 4096, "none | |"
    while length <= options.longest:
        memory, seconds, failure = tried(backend, way, length, options)
        if failure:
            return f"{best} {failure}"
        best = f"{length:,} | {memory / 2**20:,.0f} | {seconds:.1f} |"
        length *= 2
    return f"{best} nothing longer was asked"


def tried(backend: str, way: str, length: int, options: argparse.Namespace) -> tuple[int, float, str]:
    """Return the memory and time of one length, or its failure."""
    environment = {**os.environ, "KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3"}
    command = [sys.executable, __file__, "--run", way, str(length)]
    start, most = time.perf_counter(), 0
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while process.poll() is None:
            most = max(most, held(process.pid))
            seconds = time.perf_counter() - start
            if most > options.memory * 2**30 or seconds > options.seconds:
                process.kill()
                return most, seconds, "memory" if seconds <= options.seconds else "time"
            time.sleep(0.02)
    return most, time.perf_counter() - start, "" if process.returncode == 0 else f"exit status {process.returncode}"


def held(process: int) -> int:
    """Return the peak memory of a process in bytes; 0 once it has ended."""
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")), 0)


def once(way: str, length: int) -> None:
    """Do the work once, in this process."""
    import attention
    import compiled
    import numpy as np

    import limelight as ll

    kind, _, manner = way.partition(" ")
    function = attention.verb(kind, {"mask": "causal", "length": length})
    if manner == "sparsemax":
        function = lambda *given: ll.attend(*given, mask="causal", normalizer="sparsemax")  # noqa: E731
    shape = (1, length, 1, 64) if kind == "keras" else (1, 1, length, 64)
    arrays = [np.random.default_rng(7).normal(size=shape).astype("float32") for _ in range(3)]
    (compiled.backward if manner == "training" else compiled.forward)(function, *arrays)()


if __name__ == "__main__":
    main()
