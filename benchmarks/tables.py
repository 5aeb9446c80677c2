"""The table of results, results/summary.csv: one row for each comparison of limelight with a peer.

Ratios are computed per round; a row has their median, minimum and maximum. Above 1, limelight is faster or needs
less memory.
"""

import csv
import io
import statistics
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from definitions import BACKENDS, Benchmark

from limelight import _files

SUMMARY = Path(__file__).parent / "results" / "summary.csv"
NAMES = {"jax": "JAX", "tensorflow": "TensorFlow", "torch": "PyTorch"}
KEY = ("machine", "backend", "benchmark", "ours", "peer")
COLUMNS = (*KEY, "seconds", "peer_seconds", "faster", "lowest", "highest", "mb", "peer_mb", "date")

Row = dict[str, str]


def compare(benchmark: Benchmark, backend: str, variants: dict[str, Any], machine: str, date: str) -> Iterator[Row]:
    """Yield the row of each comparison of a benchmark."""
    for ours, peer in benchmark.compared.get(backend, ()):
        first, second = variants[ours], variants[peer] if peer else {}
        key = (machine, backend, benchmark.title, ours, peer or "")
        row = dict(zip(KEY, key, strict=True)) | {"date": date}
        row |= {"seconds": seconds(first), "mb": megabytes(first)}
        row |= {"peer_seconds": seconds(second), "peer_mb": megabytes(second)} if peer else {}
        if "wall" in first and "wall" in second:
            ratios = [other / own for own, other in zip(first["wall"], second["wall"], strict=True)]
            values = (statistics.median(ratios), min(ratios), max(ratios))
            row |= dict(zip(("faster", "lowest", "highest"), (f"{value:.2f}" for value in values), strict=True))
        yield {name: row.get(name, "") for name in COLUMNS}


def seconds(variant: dict[str, Any]) -> str:
    """Return the median seconds of the rounds, or the failure."""
    return f"{statistics.median(variant['wall']):.3g}" if "wall" in variant else variant["failed"]


def megabytes(variant: dict[str, Any]) -> str:
    """Return the memory in MB (2**20 bytes)."""
    return f"{variant['memory'] / 2**20:.0f}" if "memory" in variant else ""


def read(path: Path = SUMMARY) -> list[Row]:
    """Return the rows of a file; none if it does not exist."""
    if not path.exists():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def write(rows: Iterable[Row], path: Path = SUMMARY) -> None:
    """Write rows to a file. They replace the rows of the same comparisons on the same machine."""
    merged = {tuple(row[name] for name in KEY): row for row in [*read(path), *rows]}
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(sorted(merged.values(), key=lambda row: (row["machine"], BACKENDS.index(row["backend"]))))
    _files.write_text(path, text.getvalue())


def markdown(rows: Iterable[Row]) -> str:
    """Return rows as a Markdown table."""
    lines = ["| benchmark | backend | limelight / peer | faster | s | peer's s | MB | peer's MB |", "|---" * 8 + "|"]
    for row in rows:
        ratio = f"{row['faster']}x ({row['lowest']}-{row['highest']})" if row["faster"] else ""
        cells = (row["benchmark"], NAMES[row["backend"]], f"{row['ours']} / {row['peer'] or 'none'}", ratio)
        numbers = (row[name] for name in ("seconds", "peer_seconds", "mb", "peer_mb"))
        lines += ["| " + " | ".join((*cells, *numbers)) + " |"]
    return "\n".join(lines)


def describe(benchmark: Benchmark, backend: str, variants: dict[str, Any]) -> str:
    """Describe the measurements of one benchmark, as text for the terminal."""
    lines = [f"{NAMES[backend]}: {benchmark.title}"]
    for name, variant in variants.items():
        if "failed" in variant:
            lines += [f"  {name:24} {variant['failed']}"]
            continue
        rate = (
            f"  {variant['operations'] / statistics.median(variant['wall']) / 1e9:.0f} GFLOP/s"
            if variant["operations"]
            else ""
        )
        error = "" if variant["error"] is None else f"  error {variant['error']:.1e}"
        processor = f"  processor {statistics.median(variant['processor']):.4g} s"
        lines += [f"  {name:24} {seconds(variant)} s{processor}  {megabytes(variant)} MB{rate}{error}"]
    return "\n".join(lines)
