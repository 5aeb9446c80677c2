"""Measure limelight beside its peers, and write what came out, losses as well as wins.

    python benchmarks/run.py                          all works on all backends, into benchmarks/results/summary.csv
    python benchmarks/run.py --only jax full causal   some backends and works; only their rows are replaced
    python benchmarks/run.py --quick                  three rounds of the main works, printed and not written

`make pictures` then draws the charts of docs/performance.md from that file.

Each way of doing a work runs in a fresh process, what is short in five, for three rounds each; all ways of a work are built and
warmed up first, and then run in turns, so that other load on the machine affects all of them alike. A ratio is taken in each
round and its median is given, with the smallest and the largest. Before and after each run a small product tells whether the
machine is as quick as it was at its best; a round in which it was not is repeated, at most as often as there are rounds, and the
quietest are kept.
What was measured is written after each work, so that nothing is lost where the rest is not.
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

import tables
import works
from canary import Canary

HERE = Path(__file__).parent
OUT_OF_MEMORY = "out of memory"
# Rounds of a process whose work is done in several.
EACH = 3
CANARY = Canary()


def main() -> None:
    known = works.everything()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [*works.BACKENDS, *(work.name for work in known)]
    parser.add_argument("--only", nargs="+", choices=names, default=[], metavar="NAME", help=f"of {', '.join(names)}")
    parser.add_argument("--repeats", type=int, default=5, help="rounds, or processes with three each (default: 5)")
    parser.add_argument("--quick", action="store_true", help="three rounds of the main works; nothing is written")
    parser.add_argument("--all", action="store_true", help="the works of lesser interest too")
    options = parser.parse_args()
    backends = [name for name in works.BACKENDS if name in options.only] or list(works.BACKENDS)
    chosen = [work for work in known if work.name in options.only]
    chosen = chosen or [work for work in known if work.quick or options.all]
    results = []
    for backend in backends:
        for work in chosen:
            if backend in work.ways:
                rows = measure(work, backend, 3 if options.quick else options.repeats)
                print(tables.describe(work, backend, rows), flush=True)
                compared = list(tables.compare(work, backend, rows, machine(), time.strftime("%Y-%m-%d")))
                results += compared
                if not options.quick:
                    tables.write(compared)
    print(tables.markdown(results))


def measure(work: works.Work, backend: str, repeats: int) -> dict[str, Any]:
    """Measure each way of a work. A way that runs out of memory beside the others is tried again alone."""
    repeats = min(repeats, work.rounds)
    if work.fresh:
        ways, results = work.ways[backend], []
        for number in range(repeats):
            # Those that start at the same time do not tell how long a first run takes, and the first do not.
            turn = number % len(ways)
            results.append(measure_together(work, backend, (*ways[turn:], *ways[:turn]), EACH, at_once=number > 0))
        return {way: merge_processes([rows[way] for rows in results]) for way in ways}
    rows = measure_together(work, backend, work.ways[backend], repeats)
    for way in work.ways[backend]:
        if rows[way].get("failed") == OUT_OF_MEMORY:
            rows |= measure_together(work, backend, (way,), repeats)
    return rows


def merge_processes(results: list[dict[str, Any]]) -> dict[str, Any]:
    """Merge the measurements of several processes of one way; return the first failure if one failed."""
    failed = [row for row in results if "failed" in row]
    if failed:
        return failed[0]
    rounds = {name: [one for row in results for one in row[name]] for name in ("wall", "processor", "quiet")}
    return {**results[0], **rounds, "memory": max(row["memory"] for row in results)}


def measure_together(
    work: works.Work, backend: str, ways: tuple[str, ...], repeats: int, *, at_once: bool = False
) -> dict[str, Any]:
    """Measure some ways of a work in turns, in processes that start at once or one after another."""
    running: dict[str, Child] = {}
    rows: dict[str, Any] = {}
    try:
        for way in ways:
            running[way] = Child(work.name, way, backend)
            if not at_once:
                rows[way] = running[way].receive()
        if at_once:
            rows = {way: child.receive() for way, child in running.items()}
        run_in_turns(running, rows, repeats)
        return rows
    finally:
        for child in running.values():
            child.end()


def run_in_turns(running: dict[str, "Child"], rows: dict[str, Any], repeats: int) -> None:
    """Run each process that has not failed `repeats` times, in turns, and add the results to its row."""
    alive = [way for way in running if "failed" not in rows[way]]
    rounds: list[tuple[float, dict[str, Any]]] = []
    for number in range(2 * repeats):
        if sum(CANARY.quiet(slowest) for slowest, _ in rounds) == repeats:
            break
        slowest, runs = CANARY.seconds(), {}
        # Each round begins with another.
        for way in [*alive[number % len(alive) :], *alive[: number % len(alive)]] if alive else []:
            runs[way] = running[way].request("run")
            slowest = max(slowest, CANARY.seconds())
            if "failed" in runs[way]:
                rows[way] = runs[way]
                alive.remove(way)
        rounds.append((slowest, runs))
    kept = sorted(sorted(range(len(rounds)), key=lambda number: rounds[number][0])[:repeats])
    for way in alive:
        runs = [rounds[number][1][way] for number in kept]
        rows[way].update({name: [run[name] for run in runs] for name in runs[0]})
        rows[way]["quiet"] = [CANARY.best / rounds[number][0] for number in kept]
    for way in alive:
        rows[way].update(running[way].request("end"))


class Child:
    """A process that runs one way of a work on request."""

    def __init__(self, work: str, way: str, backend: str) -> None:
        # A file, because a full pipe would stop the process.
        self.stderr = tempfile.TemporaryFile("w+")  # noqa: SIM115
        environment = {**os.environ, "KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3"}
        self.process = subprocess.Popen(
            [sys.executable, HERE / "child.py", work, way],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.stderr,
            text=True,
        )

    def receive(self) -> dict[str, Any]:
        """Return the next answer, or the failure. The system kills a process that needs more memory than there is."""
        line = self.process.stdout.readline()
        if line:
            return json.loads(line)
        status = self.process.wait()
        self.stderr.seek(0)
        stderr = self.stderr.read().strip().splitlines()
        if status == -signal.SIGKILL:
            return {"failed": OUT_OF_MEMORY}
        return {"failed": stderr[-1][:200] if stderr else f"exit status {status}"}

    def request(self, what: str) -> dict[str, Any]:
        """Send a line and return the answer."""
        with contextlib.suppress(BrokenPipeError):
            print(what, file=self.process.stdin, flush=True)
        return self.receive()

    def end(self) -> None:
        """End the process."""
        self.process.kill()
        with contextlib.suppress(BrokenPipeError):
            self.process.communicate()
        self.stderr.close()


def machine() -> str:
    """Return the processor's name, how many there are, and the size of their largest cache where the system tells it."""
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
        print("Stopped. Works that were measured to the end have been written.", file=sys.stderr)
        sys.exit(130)
