"""Measure limelight beside its peers on a GPU, as `run.py` does on processors, and write what came out.

    KERAS_BACKEND=jax python benchmarks/accelerator.py
    KERAS_BACKEND=torch python benchmarks/accelerator.py --results elsewhere.json

All ways of a work are built first and run in turns, in one process: a GPU is not shared with others. A run is repeated until it
takes a tenth of a second. Memory is the scratch on the GPU besides what goes in: with JAX what the compiled program asks for,
with PyTorch the peak.
"""

import argparse
import gc
import json
import os
import statistics
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "jax")
# Memory as it is needed, and no more.
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")

import attention
import attention_statistics
import works
from tables import NAMES

from limelight import _files

BACKEND = os.environ["KERAS_BACKEND"]
RESULTS = Path(__file__).parent / "results" / "accelerator.json"
ROUNDS, SHORTEST, MOST = 7, 0.1, 200
PEER = "SDPA" if BACKEND == "torch" else "keras"


def verbs(name: str, title: str, *ways: str, **settings: Any) -> works.Work:
    """A work of the bare functions."""
    return attention.work(name, title, {"ways": {BACKEND: ways or ("limelight", PEER)}}, **settings)


def surveys() -> works.Work:
    """The survey beside Keras's weights, reduced."""
    return next(work for work in attention_statistics.WORKS if work.name == "survey")


WORKS = [
    verbs("half", "8,192 x 4 forward, bfloat16", length=8192, batch=4, dtype="bfloat16"),
    verbs("half-causal", "8,192 x 4 forward, bfloat16, causal", length=8192, batch=4, dtype="bfloat16", mask="causal"),
    verbs("half-train", "4,096 x 8 both ways, bfloat16", length=4096, batch=8, dtype="bfloat16", training=True),
    verbs("half-odd", "511 x 32 both ways, bfloat16", length=511, batch=32, dtype="bfloat16", training=True),
    verbs("full", "8,192 forward", length=8192),
    verbs("causal", "8,192 forward, causal", length=8192, mask="causal"),
    verbs("train", "4,096 x 2 both ways", length=4096, batch=2, training=True),
    verbs("train-causal", "4,096 x 4 both ways, causal", length=4096, batch=4, training=True, mask="causal"),
    verbs("window", "16,384 forward, window", "limelight", "limelight, dense mask", length=16384, mask="window"),
    surveys(),
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=RESULTS, help=f"where they are kept (default: {RESULTS.name})")
    options = parser.parse_args()
    where = device()
    if where is None:
        parser.exit(2, f"{NAMES[BACKEND]} must see a GPU. It sees none here.\n")
    rows = [{"work": work.title, "backend": BACKEND, "device": where, "ways": measured(work)} for work in WORKS]
    before = json.loads(options.results.read_text()) if options.results.exists() else []
    new = {(row["device"], row["backend"], row["work"]): row for row in [*before, *rows]}
    _files.write_text(options.results, json.dumps(list(new.values()), indent=1) + "\n")
    print(table(list(new.values())))


def device() -> str | None:
    """What the GPU is called; None where there is none."""
    if BACKEND == "torch":
        import torch

        return torch.cuda.get_device_name() if torch.cuda.is_available() else None
    import jax

    first = jax.devices()[0]
    return None if first.platform == "cpu" else first.device_kind


def measured(work: works.Work) -> dict[str, Any]:
    """Seconds of each round and bytes of each way of a work."""
    runs, found = {}, {}
    for way in work.ways[BACKEND]:
        subject = (attention_statistics if work.module == "survey" else attention).build(work, way)
        memory, output = scratch(subject.run)
        error = None if subject.error is None else subject.error(output)
        runs[way], found[way] = subject.run, {"memory": memory, "error": error, "wall": []}
        del output
    counts = {way: max(1, min(MOST, round(SHORTEST / timed(run, 1)))) for way, run in runs.items()}
    for _ in range(ROUNDS):
        for way, run in runs.items():
            found[way]["wall"].append(timed(run, counts[way]))
    runs.clear()
    gc.collect()
    return found


def scratch(run: Any) -> tuple[int, Any]:
    """How many bytes a run needs besides its inputs, and what it returned, after a first one."""
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


def table(rows: list[dict[str, Any]]) -> str:
    """What was measured, ours against each peer."""
    lines = ["| work | backend | GPU | against | ms | the peer's | faster | MB | the peer's |", "|---" * 9 + "|"]
    for row in rows:
        ours, *peers = row["ways"].items()
        lines += [line(row, ours, peer) for peer in peers]
    return "\n".join(lines)


def line(row: dict[str, Any], ours: tuple[str, Any], peer: tuple[str, Any]) -> str:
    """One comparison."""
    walls = [[1e3 * seconds for seconds in found["wall"]] for _, found in (ours, peer)]
    ratios = [other / own for own, other in zip(*walls, strict=True)]
    faster = f"{statistics.median(ratios):.2f}x ({min(ratios):.2f}-{max(ratios):.2f})"
    memory = [f"{found['memory'] / 2**20:,.0f}" for _, found in (ours, peer)]
    times = [f"{statistics.median(wall):.3g}" for wall in walls]
    start = f"| {row['work']} | {NAMES[row['backend']]} | {row['device']} | {ours[0]} / {peer[0]} |"
    return f"{start} {times[0]} | {times[1]} | {faster} | {memory[0]} | {memory[1]} |"


if __name__ == "__main__":
    main()
