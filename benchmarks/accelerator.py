"""Compare limelight with its peers on a GPU, as `run.py` does on processors, and write the results.

    KERAS_BACKEND=jax python benchmarks/accelerator.py
    KERAS_BACKEND=torch python benchmarks/accelerator.py --results elsewhere.csv

All variants of a benchmark are built first and run in turns, in one process: a GPU is not shared with others. A run is repeated
until it takes a tenth of a second. Memory is that on the GPU besides the inputs: with JAX the temporary memory of the compiled
program, with PyTorch the peak.
"""

import argparse
import gc
import os
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "jax")
# Allocate memory when it is needed.
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")

import attention
import attention_statistics
import definitions
import tables

BACKEND = os.environ["KERAS_BACKEND"]
ROUNDS, MIN_SECONDS, MAX_RUNS = 7, 0.1, 200
PEER = "SDPA" if BACKEND == "torch" else "keras"


def verbs(name: str, title: str, *variants: str, **settings: Any) -> definitions.Benchmark:
    """Return a benchmark of the bare functions."""
    variants = variants or ("limelight", PEER)
    return attention.benchmark(
        name, title, {"variants": {BACKEND: variants}, "compared": {BACKEND: (variants,)}}, **settings
    )


def statistics() -> definitions.Benchmark:
    """Return the benchmark of the statistics."""
    return next(benchmark for benchmark in attention_statistics.BENCHMARKS if benchmark.name == "statistics")


BENCHMARKS = [
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
    device_name = get_device_name()
    if device_name is None:
        parser.exit(2, f"{tables.NAMES[BACKEND]} must see a GPU. It sees none here.\n")
    rows = []
    for benchmark in BENCHMARKS:
        rows += tables.compare(benchmark, BACKEND, measure(benchmark), device_name, time.strftime("%Y-%m-%d"))
    tables.write(rows, options.results)
    print(tables.markdown(rows))


def get_device_name() -> str | None:
    """Return the name of the GPU; None if there is none."""
    if BACKEND == "torch":
        import torch

        return torch.cuda.get_device_name() if torch.cuda.is_available() else None
    import jax

    first = jax.devices()[0]
    return None if first.platform == "cpu" else first.device_kind


def measure(benchmark: definitions.Benchmark) -> dict[str, Any]:
    """Return the seconds of each round, the bytes and the error of each variant of a benchmark, by name."""
    runs, results = {}, {}
    for variant in benchmark.variants[BACKEND]:
        workload = (attention_statistics if benchmark.module == "attention_statistics" else attention).build(
            benchmark, variant
        )
        memory, output = run_and_measure_memory(workload.run)
        error = None if workload.error is None else workload.error(output)
        runs[variant], results[variant] = workload.run, {"memory": memory, "error": error, "wall": []}
        del output
    counts = {variant: max(1, min(MAX_RUNS, round(MIN_SECONDS / time_runs(run, 1)))) for variant, run in runs.items()}
    for _ in range(ROUNDS):
        for variant, run in runs.items():
            results[variant]["wall"].append(time_runs(run, counts[variant]))
    runs.clear()
    gc.collect()
    return results


def run_and_measure_memory(run: Any) -> tuple[int, Any]:
    """Return the bytes that a run needs besides its inputs, and its output."""
    output = run()
    if BACKEND == "jax":
        return run.executable.memory_analysis().temp_size_in_bytes, output
    import torch

    del output
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    base = torch.cuda.memory_allocated()
    output = run()
    return torch.cuda.max_memory_allocated() - base, output


def time_runs(run: Any, count: int) -> float:
    """Return the mean seconds of `count` runs."""
    start = time.perf_counter()
    for _ in range(count):
        run()
    return (time.perf_counter() - start) / count


if __name__ == "__main__":
    main()
