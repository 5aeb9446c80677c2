"""The longest input that fits into a given memory, for each variant of attention.

    python benchmarks/longest.py --memory 4 --only jax

Lengths are doubled until one takes too much memory or time, up to `--longest`. A process that exceeds its memory is killed.
Memory is that of the whole process, libraries included.
"""

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

import definitions

HERE = Path(__file__).parent
VARIANTS = {
    "jax": ("limelight", "limelight training", "keras", "keras training"),
    "tensorflow": ("limelight", "limelight training", "keras", "keras training"),
    "torch": ("limelight", "limelight training", "keras", "keras training", "limelight sparsemax"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--memory", type=float, default=4.0, help="GiB for a process (default: 4)")
    parser.add_argument("--seconds", type=float, default=60.0, help="for one length, compiling included (default: 60)")
    parser.add_argument("--longest", type=int, default=1 << 17, help="where to stop (default: 131,072)")
    parser.add_argument("--only", nargs="+", choices=definitions.BACKENDS, default=definitions.BACKENDS)
    parser.add_argument("--run", nargs=2, metavar=("WAY", "LENGTH"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run:
        run_once(options.run[0], int(options.run[1]))
        return
    print("One example of one head of 64, float32, causal.\n\n| backend | variant | longest | MB | s | why no longer |")
    print("|---|---|---|---|---|---|")
    for backend in options.only:
        for variant in VARIANTS[backend]:
            print(f"| {backend} | {variant} | {find_longest(backend, variant, options)} |", flush=True)


def find_longest(backend: str, variant: str, options: argparse.Namespace) -> str:
    """Return the table cells of a variant: the longest length, its memory and time, and why the search ended."""
    length, best = 4096, "none | |"
    while length <= options.longest:
        memory, seconds, failure = try_length(backend, variant, length, options)
        if failure:
            return f"{best} {failure}"
        best = f"{length:,} | {memory / 2**20:,.0f} | {seconds:.1f} |"
        length *= 2
    return f"{best} `--longest` reached"


def try_length(backend: str, variant: str, length: int, options: argparse.Namespace) -> tuple[int, float, str]:
    """Return the memory and time of one length, or its failure."""
    environment = {**os.environ, "KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3"}
    command = [sys.executable, __file__, "--run", variant, str(length)]
    start, peak = time.perf_counter(), 0
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while process.poll() is None:
            peak = max(peak, read_peak_memory(process.pid))
            seconds = time.perf_counter() - start
            if peak > options.memory * 2**30 or seconds > options.seconds:
                process.kill()
                return peak, seconds, "memory" if seconds <= options.seconds else "time"
            time.sleep(0.02)
    return peak, time.perf_counter() - start, "" if process.returncode == 0 else f"exit status {process.returncode}"


def read_peak_memory(process: int) -> int:
    """Return the peak memory of a process in bytes; 0 once it has ended."""
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")), 0)


def run_once(variant: str, length: int) -> None:
    """Compute attention once, in this process."""
    import attention
    import compiled
    import numpy as np

    import limelight as ll

    function_name, _, suffix = variant.partition(" ")
    function = attention.make_function(function_name, {"mask": "causal", "length": length})
    if suffix == "sparsemax":
        function = lambda *arrays: ll.attend(*arrays, mask="causal", normalizer="sparsemax")  # noqa: E731
    shape = (1, length, 1, 64) if function_name == "keras" else (1, 1, length, 64)
    arrays = [np.random.default_rng(7).normal(size=shape).astype("float32") for _ in range(3)]
    (compiled.backward if suffix == "training" else compiled.forward)(function, *arrays)()


if __name__ == "__main__":
    main()
