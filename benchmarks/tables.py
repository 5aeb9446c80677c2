"""What was measured, as tables."""

import statistics
from pathlib import Path
from typing import Any

from works import BACKENDS, Target, Work

NAMES = {"jax": "JAX", "tensorflow": "TensorFlow", "torch": "PyTorch"}
BEGIN = "<!-- Measured by `make bench`, which writes what stands between these lines. -->"
END = "<!-- End of what was measured. -->"


def page(works: list[Work], rows: list[dict[str, Any]]) -> str:
    """All that was measured, as a page of Markdown."""
    lines = [
        "# Measured by `make bench`",
        "",
        "Seconds and processor seconds are medians of the rounds; memory is the peak above what the process held after",
        "building and compiling; the share is that of the same backend's product of 2,048 x 2,048 matrices; the error is",
        "the largest difference from float64; quiet is how quick the machine was in the worst round, of its best, by a small",
        "product of matrices.",
    ]
    for machine, here in by_machine(rows):
        lines += ["", f"## {machine}", "", f"{described(here)}.", "", "### What was asked", "", verdicts(works, here)]
        for backend in BACKENDS:
            some = [row for row in here if row["backend"] == backend]
            if some:
                lines += ["", f"### {NAMES[backend]}", "", detail(works, some)]
    return "\n".join(lines).rstrip() + "\n"


def summary(works: list[Work], rows: list[dict[str, Any]]) -> str:
    """What was asked and what was had on each machine, for the documentation."""
    return "\n\n".join(
        f"**{machine}.** {described(here)}.\n\n{verdicts(works, here)}" for machine, here in by_machine(rows)
    )


def by_machine(rows: list[dict[str, Any]]) -> list[tuple[str, list[dict[str, Any]]]]:
    """The rows of each machine, that with the quickest products first."""
    machines = dict.fromkeys(row["machine"] for row in rows)
    found = [(machine, [row for row in rows if row["machine"] == machine]) for machine in machines]
    return sorted(found, key=lambda pair: fastest(pair[1]) or 0, reverse=True)


def described(rows: list[dict[str, Any]]) -> str:
    """How quick a machine is at products, and when it was measured."""
    days, most = sorted({row["date"] for row in rows}), fastest(rows)
    speed = "" if most is None else f"Products of 2,048 x 2,048 matrices reach {most / 1e9:.0f} GFLOP/s. "
    return f"{speed}Measured on {days[0]}" + (f" to {days[-1]}" if len(days) > 1 else "")


def fastest(rows: list[dict[str, Any]]) -> float | None:
    """The most operations a second of a large product, where one was measured."""
    return max((peak(row) for row in rows if row["work"] == "product"), default=None)


def verdicts(works: list[Work], rows: list[dict[str, Any]]) -> str:
    """For each target: what was asked and what was had."""
    lines = ["| work | backend | against | asked | faster, wall | faster, processor | less memory | had |"]
    lines += ["|---|---|---|---|---|---|---|---|"]
    for work in works:
        for row in rows:
            if row["work"] == work.name:
                lines += [verdict(work, row, target) for target in work.targets.get(row["backend"], ())]
    return "\n".join(lines)


def verdict(work: Work, row: dict[str, Any], target: Target) -> str:
    """A row for one target. It is had where wall and processor time and memory all reach what is asked."""
    if target.peer is None:
        return alone(work, row, target)
    ours, peer = row["ways"][target.ours], row["ways"][target.peer]
    asked = f"{target.speed:g}x" + (f", {target.memory:g}x less memory" if target.memory else "")
    start = f"| {work.title} | {NAMES[row['backend']]} | {target.ours} / {target.peer} | {asked} |"
    if "failed" in ours:
        return f"{start} failed: {ours['failed']} | | | no |"
    if "failed" in peer:
        return f"{start} the peer failed: {peer['failed']} | | | not compared |"
    wall, processor = ratios(ours, peer, "wall"), ratios(ours, peer, "processor")
    memory = peer["memory"] / max(ours["memory"], 1 << 20)
    had = min(statistics.median(wall), statistics.median(processor)) >= target.speed
    had = had and (target.memory is None or memory >= target.memory)
    return f"{start} {spread(wall)} | {spread(processor)} | {memory:.1f}x | {'yes' if had else 'no'} |"


def alone(work: Work, row: dict[str, Any], target: Target) -> str:
    """A row for a target that has no peer: the memory that it took."""
    ours, most = row["ways"][target.ours], target.most or 0
    start = f"| {work.title} | {NAMES[row['backend']]} | {target.ours} | under {most / 2**20:,.0f} MB |"
    if "failed" in ours:
        return f"{start} failed: {ours['failed']} | | | no |"
    wall, processor = (statistics.median(ours[name]) for name in ("wall", "processor"))
    had = "yes" if ours["memory"] < most else "no"
    return f"{start} {wall:.3g} s | {processor:.3g} s | {ours['memory'] / 2**20:,.0f} MB | {had} |"


def ratios(ours: dict[str, Any], peer: dict[str, Any], what: str) -> list[float]:
    """How many times longer the peer took, in each round."""
    return [other / own for own, other in zip(ours[what], peer[what], strict=True)]


def spread(values: list[float]) -> str:
    """A median with the smallest and the largest."""
    return f"{statistics.median(values):.2f}x ({min(values):.2f}-{max(values):.2f})"


def detail(works: list[Work], rows: list[dict[str, Any]]) -> str:
    """Every way of every work on one backend."""
    most = fastest(rows)
    lines = [
        "| work | way | s | processor s | memory MB | building s | first s | share | error | quiet |",
        "|---" * 10 + "|",
    ]
    titles = {work.name: work.title for work in works}
    for row in rows:
        for way, found in row["ways"].items():
            lines += [f"| {titles[row['work']]} | {way} | " + " | ".join(cells(found, most)) + " |"]
    return "\n".join(lines)


def cells(found: dict[str, Any], most: float | None) -> list[str]:
    """The cells of one way."""
    if "failed" in found:
        return [found["failed"], *[""] * 7]
    wall, processor = (statistics.median(found[name]) for name in ("wall", "processor"))
    share = found["operations"] / wall / most if found["operations"] and most else None
    return [
        f"{wall:.4g}",
        f"{processor:.4g}",
        f"{found['memory'] / 2**20:,.0f}",
        f"{found['built']:.2f}",
        f"{found['first']:.2f}",
        "" if share is None else f"{share:.0%}",
        "" if found["error"] is None else f"{found['error']:.1e}",
        f"{min(found['quiet']):.0%}" if found.get("quiet") else "",
    ]


def peak(row: dict[str, Any]) -> float:
    """The most operations a second that a row's ways reached."""
    return max(
        found["operations"] / statistics.median(found["wall"]) for found in row["ways"].values() if "wall" in found
    )


def plain(work: Work, backend: str, ways: dict[str, Any]) -> str:
    """One work, for reading along."""
    lines = [f"{NAMES[backend]}: {work.title}"]
    for way, found in ways.items():
        named = ("s", "processor s", "MB", "building s", "first s", "share", "error", "quiet")
        given = [f"{name} {value}" for name, value in zip(named, cells(found, None), strict=True) if value]
        lines += [f"  {way:24} " + "  ".join(given)]
    return "\n".join(lines)


def insert(path: Path, table: str) -> None:
    """Put a table between the lines of a page that say that it is measured."""
    if not path.exists():
        return
    text = path.read_text()
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    path.write_text(f"{before}{BEGIN}\n\n{table}\n\n{END}{after}")
