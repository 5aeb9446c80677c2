"""One way of one work, measured in a process of its own, which `run.py` starts and asks for one run at a time.

It reads lines from its standard input: "run" to run once, "end" to say what memory it took. It answers each with a line of JSON.
"""

import dataclasses
import gc
import importlib
import json
import os
import sys
import time
from typing import Any

# A run that is shorter than this is repeated until it takes as long, since clocks and switches count too.
SHORTEST = 0.1
MOST = 200
LONGEST_PAUSE = 0.5
# What takes so many seconds needs no warming up, and one run tells what memory it takes.
LONG = 20.0
# A work of this length is done first, in which a backend loads its code: no work that follows needs the memory of that. All ways
# go there as they go at any longer length.
SMALL = 1152


def main() -> None:
    answers = os.fdopen(os.dup(1), "w")
    if sys.platform == "linux":
        # Where memory runs out, this process ends and no other.
        with open("/proc/self/oom_score_adj", "w") as file:
            file.write("1000")
    # Whatever libraries print is no answer.
    os.dup2(2, 1)

    def answer(**fields: Any) -> None:
        print(json.dumps(fields), file=answers, flush=True)

    import works

    work, way = works.named(sys.argv[1]), sys.argv[2]
    build = importlib.import_module(work.module).build
    if work.settings.get("length", 0) > SMALL:
        build(dataclasses.replace(work, settings={**work.settings, "length": SMALL}), way).run()
    start = time.perf_counter()
    subject = build(work, way)
    built = time.perf_counter() - start
    base = settle()
    start = time.perf_counter()
    results = subject.run()
    first = once = time.perf_counter() - start
    memory = peak() - base
    error = None if subject.error is None else subject.error(results)
    del results
    if first < LONG:
        timed(subject.run, 1)
        once = timed(subject.run, 1)[0]
    count = max(1, min(MOST, round(SHORTEST / once)))
    answer(built=built, first=first, error=error, operations=subject.operations, count=count)
    for line in sys.stdin:
        if line.strip() == "run":
            wall, processor = timed(subject.run, count)
            # What a run leaves behind is given back in the background: gigabytes, beside whoever runs next.
            time.sleep(min(LONGEST_PAUSE, wall * count))
            answer(wall=wall, processor=processor)
        else:
            if first < LONG:
                # Once more from a clean state: what many runs leave behind in the allocator is no need of one.
                base = settle()
                subject.run()
                memory = max(memory, peak() - base)
            answer(memory=memory)
            break


def timed(run: Any, count: int) -> tuple[float, float]:
    """Wall and processor seconds of one of so many runs."""
    wall, processor = time.perf_counter(), time.process_time()
    for _ in range(count):
        run()
    return (time.perf_counter() - wall) / count, (time.process_time() - processor) / count


def settle() -> int:
    """Give back what is free, forget the peak, and say how much memory the process holds, in bytes."""
    gc.collect()
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).malloc_trim(0)
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")
        return status("VmRSS")
    return peak()


def peak() -> int:
    """Return the peak memory of the process since `settle`; on systems other than Linux, since its start."""
    if sys.platform == "linux":
        return status("VmHWM")
    import resource

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


def status(name: str) -> int:
    """Return a field of the process's status, in bytes."""
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith(name + ":"))


if __name__ == "__main__":
    main()
