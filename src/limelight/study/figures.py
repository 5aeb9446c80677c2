"""The figures of a study, as SVG."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from limelight import plot
from limelight.evaluate import Comparison
from limelight.maps import AttentionMaps
from limelight.study.evaluation import Assessment
from limelight.study.folder import Run


def draw_quality(
    folder: Path,
    runs: Mapping[str, Sequence[Run]],
    titles: Mapping[str, str],
    assessed: Mapping[str, Assessment],
    compared: Sequence[Comparison],
    classes: Sequence[str],
) -> None:
    """Draw learning curves, differences, reliability and confusion matrices into `folder`."""
    histories = {titles[name]: [run.summary["history"] for run in its] for name, its in runs.items()}
    learning = {title: its for title, its in histories.items() if all(its)}
    for metric, words in (("val_loss", "validation loss"), ("val_accuracy", "validation accuracy")):
        curves = {title: [history[metric] for history in its] for title, its in learning.items()}
        plot.save(plot.curves(curves, metric=words), folder / f"{metric.removeprefix('val_')}.svg")
    for metric in dict.fromkeys(comparison.metric for comparison in compared):
        chosen = [comparison for comparison in compared if comparison.metric == metric]
        plot.save(plot.difference(chosen), folder / f"difference-{metric}.svg")
    plot.save(
        plot.reliability({titles[name]: each.reliability for name, each in assessed.items()}),
        folder / "reliability.svg",
    )
    for name, each in assessed.items():
        plot.save(plot.confusion(each.confusion, classes, title=titles[name]), folder / f"confusion-{name}.svg")


def draw_examples(folder: Path, examples: Sequence[Mapping[str, Any]], maps: AttentionMaps | None) -> None:
    """Draw the first example of each kind into `folder`: texts as highlighted words, series as a heatmap."""
    for old in folder.glob("example-*.svg"):
        old.unlink()  # of another model, or of examples that are not looked at any more
    drawn = set()
    for place, example in enumerate(examples):
        if maps is None or example["kind"] in drawn:
            continue
        drawn.add(example["kind"])
        title = f"{example['truth']}, predicted {example['prediction']} ({100 * example['probability']:.0f} %)"
        if example["text"] is None:
            drawing = plot.heatmap(maps["attention"], example=place, title=title)
        else:
            drawing = plot.text(example["tokens"], example["weights"], title=title)
        plot.save(drawing, folder / f"example-{example['kind'].replace(' ', '-')}.svg")
