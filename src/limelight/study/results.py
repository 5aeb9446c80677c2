"""Write the results of a study: one document, its figures and its report."""

import dataclasses
import math
import os
import platform
import shlex
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import keras
import numpy as np

import limelight
from limelight import _files, plot, report
from limelight.data import Dataset, Repair, Split
from limelight.evaluate import Comparison
from limelight.maps import AttentionMaps
from limelight.study import verdict
from limelight.study.evaluation import Evaluation, compare_models, comparison_to_dict, evaluate_predictions
from limelight.study.folder import Run
from limelight.study.settings import Settings, flag

SCHEMA = 1
# The titles of the models in sentences.
SENTENCE_TITLES = {"attention": "attention", "mean": "mean pooling", "linear": "the linear model"}


def validation_loss(run: Run) -> float:
    """Return the lowest loss of a run on the validation part: that of the epoch that was kept."""
    return min(run.summary["history"]["val_loss"])


def load_model(run: Run) -> keras.Model:
    """Load the model of a run."""
    if run.keras_model is None:
        raise ValueError(f"`run` must have a saved Keras model. Received: {run.name}.")
    return keras.models.load_model(run.keras_model, compile=False)


def write(
    out: Path,
    *,
    settings: Settings,
    dataset: Dataset,
    split: Split,
    repairs: Sequence[Repair],
    truth: np.ndarray,
    runs: Mapping[str, Sequence[Run]],
    titles: Mapping[str, str],
    examples: list[dict[str, Any]],
    maps: AttentionMaps | None,
    notes: Sequence[str] = (),
) -> dict[str, Any]:
    """Evaluate the runs and write `figures/`, `results.json` and `report.html`, in this order.

    Args:
        out: The output folder.
        settings: The settings of the study.
        dataset: The data set.
        split: Its split.
        repairs: What reading and encoding changed.
        truth: The true classes of the test part (examples,).
        runs: For each model its runs, one for each seed; the first model is compared with each other model.
        titles: For each model its title in tables.
        examples: Test examples with their attention weights.
        maps: The attention maps of the examples, or None if there are none.
        notes: Sentences on the data that limit what the results show.

    Returns:
        The results.
    """
    classes = dataset.classes
    predictions = {name: [run.probabilities["test"] for run in model_runs] for name, model_runs in runs.items()}
    evaluations = {name: evaluate_predictions(truth, each, classes) for name, each in predictions.items()}
    train_counts = np.bincount(dataset.labels[split.train], minlength=len(classes))
    metric = verdict.choose_metric(train_counts)
    trained = {name: each for name, each in predictions.items() if name != verdict.MAJORITY}
    comparisons = compare_models(truth, trained, SENTENCE_TITLES, classes, (metric, "log_loss"))
    names = {title: name for name, title in SENTENCE_TITLES.items()}
    caveats = verdict.find_caveats(runs, SENTENCE_TITLES)
    entries = [
        verdict.withdraw_claim(comparison_to_dict(comparison, names), caveats, SENTENCE_TITLES)
        for comparison in comparisons
    ]
    results = {
        "schema_version": SCHEMA,
        "command": _reproduce_command(settings),
        "title": f"Does attention help on {dataset.name}?",
        "verdict": verdict.write(
            entries, [comparison.shown for comparison in comparisons], metric, classes, train_counts, truth
        ),
        "caveats": [*caveats.values(), *notes],
        "data": _describe_data(dataset, split, repairs),
        "environment": _describe_environment(),
        "settings": dataclasses.asdict(settings),
        "models": [_describe_model(name, titles[name], runs[name], evaluations[name]) for name in runs],
        "comparisons": entries,
        "examples": examples,
    }
    _draw_quality(out / "figures", runs, titles, evaluations, comparisons, classes)
    _draw_examples(out / "figures", examples, maps)
    _files.write_json(out / "results.json", results)
    report.write(out / "report.html", maps, results=results)
    return results


def _reproduce_command(settings: Settings) -> str:
    """Return the command that reproduces the study: the backend, and each setting that is not the default."""
    words = ["limelight", "study", settings.source]
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        if field.name != "source" and value != field.default:
            words += [flag(field.name), str(value)]
    return f"KERAS_BACKEND={keras.backend.backend()} {shlex.join(words)}"


def _describe_environment() -> dict[str, str]:
    """Return the versions that the study ran on."""
    backend = keras.backend.backend()
    # TensorFlow is installed by either of two packages.
    is_cpu_package = backend == "tensorflow" and not any(metadata.distributions(name="tensorflow"))
    names = ["tensorflow-cpu" if is_cpu_package else backend, "numpy", "scikit-learn", "scipy", "tokenizers"]
    return {
        "limelight": limelight.__version__,
        "python": platform.python_version(),
        "keras": keras.__version__,
        "backend": backend,
        **{name: metadata.version(name) for name in names},
        "system": f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPU cores",
    }


def _describe_data(dataset: Dataset, split: Split, repairs: Sequence[Repair]) -> dict[str, Any]:
    parts = {name: getattr(split, name) for name in ("train", "validation", "test")}
    counts = {
        name: np.bincount(dataset.labels[indices], minlength=len(dataset.classes)) for name, indices in parts.items()
    }
    return {
        "name": dataset.name,
        "source": dataset.source,
        "kind": dataset.kind,
        "counts": {name: len(indices) for name, indices in parts.items()},
        "classes": list(dataset.classes),
        "balance": {
            label: {name: int(count[index]) for name, count in counts.items()}
            for index, label in enumerate(dataset.classes)
        },
        "fingerprint": split.fingerprint,
        "repairs": [{"what": repair.what, "count": repair.count} for repair in repairs],
    }


def _describe_model(name: str, title: str, runs: Sequence[Run], evaluation: Evaluation) -> dict[str, Any]:
    return {
        "name": name,
        "title": title,
        "parameters": runs[0].summary["parameters"],
        "runs": [
            {
                "seed": run.seed,
                **{key: run.summary[key] for key in ("seconds", "epochs", "history")},
                "metrics": {key: value if math.isfinite(value) else None for key, value in metrics.items()},
            }
            for run, metrics in zip(runs, evaluation.runs, strict=True)
        ],
        "metrics": {key: estimate.to_dict() for key, estimate in evaluation.metrics.items()},
        "seeds": {key: estimate.to_dict() for key, estimate in evaluation.seeds.items()},
        "per_class": evaluation.per_class,
        "confusion": evaluation.confusion.tolist(),
        "reliability": [
            {"confidence": confidence, "accuracy": accuracy, "count": count}
            for confidence, accuracy, count in zip(*evaluation.reliability.to_dict().values(), strict=True)
        ],
    }


def _draw_quality(
    folder: Path,
    runs: Mapping[str, Sequence[Run]],
    titles: Mapping[str, str],
    evaluations: Mapping[str, Evaluation],
    comparisons: Sequence[Comparison],
    classes: Sequence[str],
) -> None:
    """Draw learning curves, differences, reliability and confusion matrices into `folder`."""
    histories = {titles[name]: [run.summary["history"] for run in model_runs] for name, model_runs in runs.items()}
    for metric, title in (("val_loss", "validation loss"), ("val_accuracy", "validation accuracy")):
        # The linear model and the class shares have no epochs.
        curves = {name: [history[metric] for history in each] for name, each in histories.items() if all(each)}
        plot.save(folder / f"{metric.removeprefix('val_')}.svg", plot.curves(curves, metric=title))
    for metric in dict.fromkeys(comparison.metric for comparison in comparisons):
        chosen = [comparison for comparison in comparisons if comparison.metric == metric]
        plot.save(folder / f"difference-{metric}.svg", plot.difference(chosen))
    plot.save(
        folder / "reliability.svg",
        plot.reliability({titles[name]: each.reliability for name, each in evaluations.items()}),
    )
    for name, each in evaluations.items():
        plot.save(folder / f"confusion-{name}.svg", plot.confusion(each.confusion, classes, title=titles[name]))


def _draw_examples(folder: Path, examples: Sequence[Mapping[str, Any]], maps: AttentionMaps | None) -> None:
    """Draw the first example of each kind into `folder`: a text as highlighted words, a series as a heatmap."""
    for old in folder.glob("example-*.svg"):
        old.unlink()
    drawn = set()
    for index, example in enumerate(examples):
        if maps is None or example["kind"] in drawn:
            continue
        drawn.add(example["kind"])
        title = f"{example['truth']}, predicted {example['prediction']} ({100 * example['probability']:.0f} %)"
        if example["text"] is None:
            drawing = plot.heatmap(maps["attention"], example=index, title=title)
        else:
            drawing = plot.text(example["tokens"], example["weights"], title=title)
        plot.save(folder / f"example-{example['kind'].replace(' ', '-')}.svg", drawing)
