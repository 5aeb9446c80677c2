"""The table of what was measured: results/summary.csv, one row for each comparison of limelight with a peer.

A ratio is taken in each round; a row holds its median, smallest and largest value. Above 1, limelight is faster or needs
less memory.
"""

import csv
import io
import statistics
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from works import BACKENDS, Work

from limelight import _files

SUMMARY = Path(__file__).parent / "results" / "summary.csv"
NAMES = {"jax": "JAX", "tensorflow": "TensorFlow", "torch": "PyTorch"}
KEY = ("machine", "backend", "work", "ours", "peer")
COLUMNS = (*KEY, "seconds", "peer_seconds", "faster", "lowest", "highest", "mb", "peer_mb", "date")

Row = dict[str, str]


def compare(work: Work, backend: str, ways: dict[str, Any], machine: str, date: str) -> Iterator[Row]:
    """Yield the row of each comparison of a work that was measured."""
    for ours, peer in work.compared.get(backend, ()):
        first, second = ways[ours], ways[peer] if peer else {}
        key = (machine, backend, work.title, ours, peer or "")
        row = dict(zip(KEY, key, strict=True)) | {"date": date}
        row |= {"seconds": seconds(first), "mb": megabytes(first)}
        row |= {"peer_seconds": seconds(second), "peer_mb": megabytes(second)} if peer else {}
        if "wall" in first and "wall" in second:
            ratios = [other / own for own, other in zip(first["wall"], second["wall"], strict=True)]
            values = (statistics.median(ratios), min(ratios), max(ratios))
            row |= dict(zip(("faster", "lowest", "highest"), (f"{value:.2f}" for value in values), strict=True))
        yield {name: row.get(name, "") for name in COLUMNS}


def seconds(way: dict[str, Any]) -> str:
    """Return the median of the rounds, or why there are none."""
    return f"{statistics.median(way['wall']):.3g}" if "wall" in way else way["failed"]


def megabytes(way: dict[str, Any]) -> str:
    """Return the memory in MB (2**20 bytes)."""
    return f"{way['memory'] / 2**20:.0f}" if "memory" in way else ""


def read(path: Path = SUMMARY) -> list[Row]:
    """Return the rows of a file; none if it does not exist."""
    if not path.exists():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def write(rows: Iterable[Row], path: Path = SUMMARY) -> None:
    """Write rows to a file, in place of the rows of the same comparisons on the same machine."""
    merged = {tuple(row[name] for name in KEY): row for row in [*read(path), *rows]}
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(sorted(merged.values(), key=lambda row: (row["machine"], BACKENDS.index(row["backend"]))))
    _files.write_text(path, text.getvalue())


def markdown(rows: Iterable[Row]) -> str:
    """Return rows as a table of a page."""
    lines = ["| work | backend | limelight / peer | faster | s | peer's s | MB | peer's MB |", "|---" * 8 + "|"]
    for row in rows:
        ratio = f"{row['faster']}x ({row['lowest']}-{row['highest']})" if row["faster"] else ""
        cells = (row["work"], NAMES[row["backend"]], f"{row['ours']} / {row['peer'] or 'none'}", ratio)
        numbers = (row[name] for name in ("seconds", "peer_seconds", "mb", "peer_mb"))
        lines += ["| " + " | ".join((*cells, *numbers)) + " |"]
    return "\n".join(lines)


def describe(work: Work, backend: str, ways: dict[str, Any]) -> str:
    """Return the measurements of one work, for reading along."""
    lines = [f"{NAMES[backend]}: {work.title}"]
    for name, way in ways.items():
        if "failed" in way:
            lines += [f"  {name:24} {way['failed']}"]
            continue
        rate = f"  {way['operations'] / statistics.median(way['wall']) / 1e9:.0f} GFLOP/s" if way["operations"] else ""
        error = "" if way["error"] is None else f"  error {way['error']:.1e}"
        processor = f"  processor {statistics.median(way['processor']):.4g} s"
        lines += [f"  {name:24} {seconds(way)} s{processor}  {megabytes(way)} MB{rate}{error}"]
    return "\n".join(lines)
