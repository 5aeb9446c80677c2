"""A worker process that measures one variant of one benchmark, started by `run.py`.

It reads commands from its standard input, one a line: "run" measures one run, "end" reports the memory. It responds to each
with a line of JSON.
"""

import dataclasses
import gc
import importlib
import json
import os
import sys
import time
from typing import Any

# Shorter runs are repeated for so many seconds, so that clocks and task switches matter less.
MIN_SECONDS = 0.1
MAX_RUNS = 200
MAX_PAUSE = 0.5
# Runs of so many seconds need no warm-up, and are measured once for their memory.
LONG_SECONDS = 20.0
# Each variant first runs at this length, so that the memory of the code that a backend loads is not counted. At this length it
# takes the same implementation as at any longer one.
WARM_UP_LENGTH = 1152


def main() -> None:
    responses = os.fdopen(os.dup(1), "w")
    if sys.platform == "linux":
        # If memory runs out, the system must kill this process and no other.
        with open("/proc/self/oom_score_adj", "w") as file:
            file.write("1000")
    # Libraries must not print among the responses.
    os.dup2(2, 1)

    def respond(**fields: Any) -> None:
        print(json.dumps(fields), file=responses, flush=True)

    import definitions

    benchmark, variant = definitions.get_benchmark(sys.argv[1]), sys.argv[2]
    build = importlib.import_module(benchmark.module).build
    if benchmark.settings.get("length", 0) > WARM_UP_LENGTH:
        build(dataclasses.replace(benchmark, settings={**benchmark.settings, "length": WARM_UP_LENGTH}), variant).run()
    start = time.perf_counter()
    workload = build(benchmark, variant)
    built = time.perf_counter() - start
    base = release_memory()
    start = time.perf_counter()
    results = workload.run()
    first = seconds = time.perf_counter() - start
    memory = peak_memory() - base
    error = None if workload.error is None else workload.error(results)
    del results
    if first < LONG_SECONDS:
        time_runs(workload.run, 1)
        seconds = time_runs(workload.run, 1)[0]
    count = max(1, min(MAX_RUNS, round(MIN_SECONDS / seconds)))
    respond(built=built, first=first, error=error, operations=workload.operations, count=count)
    for line in sys.stdin:
        if line.strip() == "run":
            wall, processor = time_runs(workload.run, count)
            # The system frees the memory of a run, gigabytes, in the background: it must not disturb the next run.
            time.sleep(min(MAX_PAUSE, wall * count))
            respond(wall=wall, processor=processor)
        else:
            if first < LONG_SECONDS:
                # Once more from a clean state: one run does not need what many leave behind in the allocator.
                base = release_memory()
                workload.run()
                memory = max(memory, peak_memory() - base)
            respond(memory=memory)
            break


def time_runs(run: Any, count: int) -> tuple[float, float]:
    """Return the mean wall and processor seconds of `count` runs."""
    wall, processor = time.perf_counter(), time.process_time()
    for _ in range(count):
        run()
    return (time.perf_counter() - wall) / count, (time.process_time() - processor) / count


def release_memory() -> int:
    """Release free memory, reset the peak, and return the memory of the process in bytes."""
    gc.collect()
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).malloc_trim(0)
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")
        return read_status("VmRSS")
    return peak_memory()


def peak_memory() -> int:
    """Return the peak memory of the process since `release_memory`; on systems other than Linux, since its start."""
    if sys.platform == "linux":
        return read_status("VmHWM")
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def read_status(name: str) -> int:
    """Return a memory field of the process's status, in bytes."""
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith(name + ":"))


if __name__ == "__main__":
    main()
