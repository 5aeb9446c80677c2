"""Measure limelight beside its peers on a GPU, as `run.py` does on processors, and write what came out.

    KERAS_BACKEND=jax python benchmarks/accelerator.py
    KERAS_BACKEND=torch python benchmarks/accelerator.py --results elsewhere.csv

All ways of a work are built first and run in turns, in one process: a GPU is not shared with others. A run is repeated until it
takes a tenth of a second. Memory is the scratch on the GPU besides what goes in: with JAX what the compiled program asks for,
with PyTorch the peak.
"""

import argparse
import gc
import os
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "jax")
# Memory as it is needed, and no more.
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")

import attention
import attention_statistics
import tables
import works

BACKEND = os.environ["KERAS_BACKEND"]
ROUNDS, SHORTEST, MOST = 7, 0.1, 200
PEER = "SDPA" if BACKEND == "torch" else "keras"


def verbs(name: str, title: str, *ways: str, **settings: Any) -> works.Work:
    """Return a work of the bare functions."""
    ways = ways or ("limelight", PEER)
    return attention.work(name, title, {"ways": {BACKEND: ways}, "compared": {BACKEND: (ways,)}}, **settings)


def statistics() -> works.Work:
    """Return the statistics, beside Keras's weights reduced."""
    return next(work for work in attention_statistics.WORKS if work.name == "statistics")


WORKS = [
    verbs("half", "8192 x 4 forward bfloat16", length=8192, batch=4, dtype="bfloat16"),
    verbs("half-causal", "8192 x 4 forward bfloat16 causal", length=8192, batch=4, dtype="bfloat16", mask="causal"),
    verbs("half-train", "4096 x 8 forward + backward bfloat16", length=4096, batch=8, dtype="bfloat16", training=True),
    verbs("half-odd", "511 x 32 forward + backward bfloat16", length=511, batch=32, dtype="bfloat16", training=True),
    verbs("full", "8192 forward", length=8192),
    verbs("causal", "8192 forward causal", length=8192, mask="causal"),
    verbs("train", "4096 x 2 forward + backward", length=4096, batch=2, training=True),
    verbs("train-causal", "4096 x 4 forward + backward causal", length=4096, batch=4, training=True, mask="causal"),
    verbs("window", "16384 forward window 256", "limelight", "limelight, dense mask", length=16384, mask="window"),
    statistics(),
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=tables.SUMMARY, help="the file to write (default: %(default)s)")
    options = parser.parse_args()
    where = device()
    if where is None:
        parser.exit(2, f"{tables.NAMES[BACKEND]} must see a GPU. It sees none here.\n")
    rows = []
    for work in WORKS:
        rows += tables.compare(work, BACKEND, measured(work), where, time.strftime("%Y-%m-%d"))
    tables.write(rows, options.results)
    print(tables.markdown(rows))


def device() -> str | None:
    """Return the name of the GPU; None where there is none."""
    if BACKEND == "torch":
        import torch

        return torch.cuda.get_device_name() if torch.cuda.is_available() else None
    import jax

    first = jax.devices()[0]
    return None if first.platform == "cpu" else first.device_kind


def measured(work: works.Work) -> dict[str, Any]:
    """Seconds of each round and bytes of each way of a work."""
    runs, results = {}, {}
    for way in work.ways[BACKEND]:
        subject = (attention_statistics if work.module == "attention_statistics" else attention).build(work, way)
        memory, output = scratch(subject.run)
        error = None if subject.error is None else subject.error(output)
        runs[way], results[way] = subject.run, {"memory": memory, "error": error, "wall": []}
        del output
    counts = {way: max(1, min(MOST, round(SHORTEST / timed(run, 1)))) for way, run in runs.items()}
    for _ in range(ROUNDS):
        for way, run in runs.items():
            results[way]["wall"].append(timed(run, counts[way]))
    runs.clear()
    gc.collect()
    return results


def scratch(run: Any) -> tuple[int, Any]:
    """Return the bytes that a run needs besides its inputs, and its result, after a first run."""
    output = run()
    if BACKEND == "jax":
        return run.code.memory_analysis().temp_size_in_bytes, output
    import torch

    del output
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    base = torch.cuda.memory_allocated()
    output = run()
    return torch.cuda.max_memory_allocated() - base, output


def timed(run: Any, count: int) -> float:
    """Seconds of one of so many runs."""
    start = time.perf_counter()
    for _ in range(count):
        run()
    return (time.perf_counter() - start) / count


if __name__ == "__main__":
    main()
