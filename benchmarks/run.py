"""Compare limelight with its peers, and write all results, losses as well as wins.

    python benchmarks/run.py                          all benchmarks on all backends, into benchmarks/results/summary.csv
    python benchmarks/run.py --only jax full causal   some backends and benchmarks; only their rows are replaced
    python benchmarks/run.py --quick                  three rounds of the main benchmarks, printed and not written

`make pictures` then draws the charts of docs/performance.md from that file.

Each variant of a benchmark runs in a fresh process, or in five processes with three rounds each if it is short. All variants are
built and warmed up first and then run in turns, so that other load on the machine affects all of them alike. Ratios are computed
per round; the table has their median, minimum and maximum. Before and after each run a small product is timed: a round in which
the machine was slower than at its best is repeated, at most as often as there are rounds, and the fastest are kept.
Results are written after each benchmark, so that an interrupted run keeps them.
"""

import argparse
import contextlib
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import definitions
import tables
from canary import Canary

HERE = Path(__file__).parent
OUT_OF_MEMORY = "out of memory"
# Rounds in each of several processes of a benchmark.
ROUNDS_PER_PROCESS = 3
CANARY = Canary()


def main() -> None:
    benchmarks = definitions.load_benchmarks()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [*definitions.BACKENDS, *(benchmark.name for benchmark in benchmarks)]
    parser.add_argument("--only", nargs="+", choices=names, default=[], metavar="NAME", help=f"of {', '.join(names)}")
    parser.add_argument("--repeats", type=int, default=5, help="rounds, or processes with three each (default: 5)")
    parser.add_argument("--quick", action="store_true", help="three rounds of the main benchmarks; nothing is written")
    parser.add_argument("--all", action="store_true", help="include the minor benchmarks")
    options = parser.parse_args()
    backends = [name for name in definitions.BACKENDS if name in options.only] or list(definitions.BACKENDS)
    selected = [benchmark for benchmark in benchmarks if benchmark.name in options.only]
    selected = selected or [benchmark for benchmark in benchmarks if benchmark.quick or options.all]
    results = []
    for backend in backends:
        for benchmark in selected:
            if backend in benchmark.variants:
                rows = measure(benchmark, backend, 3 if options.quick else options.repeats)
                print(tables.describe(benchmark, backend, rows), flush=True)
                compared = list(tables.compare(benchmark, backend, rows, describe_machine(), time.strftime("%Y-%m-%d")))
                results += compared
                if not options.quick:
                    tables.write(compared)
    print(tables.markdown(results))


def measure(benchmark: definitions.Benchmark, backend: str, repeats: int) -> dict[str, Any]:
    """Measure each variant of a benchmark. One that runs out of memory while the others are loaded is repeated alone."""
    repeats = min(repeats, benchmark.rounds)
    if benchmark.fresh:
        variants, results = benchmark.variants[backend], []
        for number in range(repeats):
            # The time of a first run is taken from processes that start one after another.
            turn = number % len(variants)
            results.append(
                measure_together(
                    benchmark, backend, (*variants[turn:], *variants[:turn]), ROUNDS_PER_PROCESS, in_parallel=number > 0
                )
            )
        return {variant: merge_processes([rows[variant] for rows in results]) for variant in variants}
    rows = measure_together(benchmark, backend, benchmark.variants[backend], repeats)
    for variant in benchmark.variants[backend]:
        if rows[variant].get("failed") == OUT_OF_MEMORY:
            rows |= measure_together(benchmark, backend, (variant,), repeats)
    return rows


def merge_processes(results: list[dict[str, Any]]) -> dict[str, Any]:
    """Merge the measurements of several processes of one variant; return the first failure if one failed."""
    failed = [row for row in results if "failed" in row]
    if failed:
        return failed[0]
    rounds = {name: [value for row in results for value in row[name]] for name in ("wall", "processor", "quiet")}
    return {**results[0], **rounds, "memory": max(row["memory"] for row in results)}


def measure_together(
    benchmark: definitions.Benchmark,
    backend: str,
    variants: tuple[str, ...],
    repeats: int,
    *,
    in_parallel: bool = False,
) -> dict[str, Any]:
    """Measure some variants of a benchmark in turns, in processes that start in parallel or one after another."""
    running: dict[str, Worker] = {}
    rows: dict[str, Any] = {}
    try:
        for variant in variants:
            running[variant] = Worker(benchmark.name, variant, backend)
            if not in_parallel:
                rows[variant] = running[variant].receive()
        if in_parallel:
            rows = {variant: worker.receive() for variant, worker in running.items()}
        run_in_turns(running, rows, repeats)
        return rows
    finally:
        for worker in running.values():
            worker.end()


def run_in_turns(running: dict[str, "Worker"], rows: dict[str, Any], repeats: int) -> None:
    """Run each process that has not failed `repeats` times, in turns, and add the results to its row."""
    alive = [variant for variant in running if "failed" not in rows[variant]]
    rounds: list[tuple[float, dict[str, Any]]] = []
    for number in range(2 * repeats):
        if sum(CANARY.quiet(slowest) for slowest, _ in rounds) == repeats:
            break
        slowest, runs = CANARY.seconds(), {}
        # Each round begins with another variant.
        for variant in [*alive[number % len(alive) :], *alive[: number % len(alive)]] if alive else []:
            runs[variant] = running[variant].request("run")
            slowest = max(slowest, CANARY.seconds())
            if "failed" in runs[variant]:
                rows[variant] = runs[variant]
                alive.remove(variant)
        rounds.append((slowest, runs))
    kept = sorted(sorted(range(len(rounds)), key=lambda number: rounds[number][0])[:repeats])
    for variant in alive:
        runs = [rounds[number][1][variant] for number in kept]
        rows[variant].update({name: [run[name] for run in runs] for name in runs[0]})
        rows[variant]["quiet"] = [CANARY.best / rounds[number][0] for number in kept]
    for variant in alive:
        rows[variant].update(running[variant].request("end"))


class Worker:
    """A process that runs one variant of a benchmark on request."""

    def __init__(self, benchmark: str, variant: str, backend: str) -> None:
        # A file, because a full pipe would stop the process.
        self.stderr = tempfile.TemporaryFile("w+")  # noqa: SIM115
        environment = {**os.environ, "KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3"}
        self.process = subprocess.Popen(
            [sys.executable, HERE / "worker.py", benchmark, variant],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.stderr,
            text=True,
        )

    def receive(self) -> dict[str, Any]:
        """Return the next response, or the failure. The system kills a process that needs more memory than there is."""
        line = self.process.stdout.readline()
        if line:
            return json.loads(line)
        status = self.process.wait()
        self.stderr.seek(0)
        stderr = self.stderr.read().strip().splitlines()
        if status == -signal.SIGKILL:
            return {"failed": OUT_OF_MEMORY}
        return {"failed": stderr[-1][:200] if stderr else f"exit status {status}"}

    def request(self, command: str) -> dict[str, Any]:
        """Send a command and return the response."""
        with contextlib.suppress(BrokenPipeError):
            print(command, file=self.process.stdin, flush=True)
        return self.receive()

    def end(self) -> None:
        """End the process."""
        self.process.kill()
        with contextlib.suppress(BrokenPipeError):
            self.process.communicate()
        self.stderr.close()


def describe_machine() -> str:
    """Describe the processor: its name, the number of CPUs, and the size of the largest cache if known."""
    model, cache = platform.processor() or platform.machine(), ""
    if sys.platform == "linux":
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), model)
        sizes = sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size"))
        kilobytes = max((int(size.read_text().strip().rstrip("K")) for size in sizes), default=0)
        cache = f" {kilobytes / 1024:g} MB" if kilobytes else ""
    return f"{model} {os.cpu_count()} CPUs{cache}"


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        print("Stopped. The results of finished benchmarks have been written.", file=sys.stderr)
        sys.exit(130)
