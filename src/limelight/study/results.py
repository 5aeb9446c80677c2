"""The results of a study: one document, its report and its figures."""

import dataclasses
import math
import os
import platform
import shlex
import shutil
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import keras
import numpy as np

import limelight
from limelight import _files, report
from limelight.data import Dataset, Repair, Split
from limelight.maps import AttentionMaps
from limelight.study import evaluation, figures
from limelight.study.evaluation import Assessment
from limelight.study.folder import Run
from limelight.study.settings import Settings, flag

SCHEMA = 1
# What a sentence calls each model.
SPOKEN = {"attention": "attention", "mean": "mean pooling", "linear": "the linear model"}


def validation_loss(run: Run) -> float:
    """The lowest loss on the validation part: that of the epoch that was kept."""
    return min(run.summary["history"]["val_loss"])


def load_model(run: Run) -> keras.Model:
    """Return the model of a run, read back from its file."""
    if run.keras_model is None:
        raise ValueError(f"{run.name} has no model of Keras.")
    return keras.models.load_model(run.keras_model, compile=False)


def keep_model(run: Run, out: Path) -> None:
    """Copy the model of a run to `out`/model.keras."""
    if run.keras_model is not None:
        with _files.replacing(out / "model.keras") as temporary:
            shutil.copyfile(run.keras_model, temporary)


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
) -> dict[str, Any]:
    """Assess the runs and write `figures/`, `results.json` and `report.html`, in this order.

    Args:
        out: The folder.
        settings, dataset, split, repairs: What was done with which data.
        truth: The true classes of the test part (examples,).
        runs: For each model its runs, one for each seed; the first model is compared with each other one.
        titles: For each model what tables call it.
        examples, maps: What `showing.look` returned.

    Returns:
        The results.
    """
    classes = dataset.classes
    predictions = {name: [run.probabilities["test"] for run in its] for name, its in runs.items()}
    assessed = {name: evaluation.assess(truth, each, classes) for name, each in predictions.items()}
    compared = evaluation.compare(truth, predictions, SPOKEN, classes)
    names = {spoken: name for name, spoken in SPOKEN.items()}
    results = {
        "schema_version": SCHEMA,
        "command": command(settings),
        "title": f"Does attention help on {dataset.name}?",
        "verdict": [evaluation.in_words(each, names)["sentence"] for each in compared if each.metric == "accuracy"],
        "data": _data(dataset, split, repairs),
        "environment": environment(),
        "settings": dataclasses.asdict(settings),
        "models": [_model(name, titles[name], runs[name], assessed[name], classes) for name in runs],
        "comparisons": [evaluation.in_words(each, names) for each in compared],
        "examples": examples,
    }
    figures.draw_quality(out / "figures", runs, titles, assessed, compared, classes)
    figures.draw_examples(out / "figures", examples, maps)
    _files.write_json(out / "results.json", results)
    report.write(out / "report.html", maps, results=results)
    return results


def command(settings: Settings) -> str:
    """Return the command that makes the study again: the backend, and each setting that is not the default."""
    words = ["limelight", "study", settings.source]
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        if field.name != "source" and value != field.default:
            words += [flag(field.name), str(value)]
    return f"KERAS_BACKEND={keras.backend.backend()} {shlex.join(words)}"


def environment() -> dict[str, str]:
    """Return what the study ran on, by name and version."""
    backend = keras.backend.backend()
    names = [backend if backend != "tensorflow" else _tensorflow(), "numpy", "scikit-learn", "scipy", "tokenizers"]
    return {
        "limelight": limelight.__version__,
        "python": platform.python_version(),
        "keras": keras.__version__,
        "backend": backend,
        **{name: metadata.version(name) for name in names},
        "system": f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPU cores",
    }


def _tensorflow() -> str:
    """The package that TensorFlow was installed from."""
    installed = {name for name in ("tensorflow", "tensorflow-cpu") if _is_installed(name)}
    return "tensorflow" if "tensorflow" in installed or not installed else "tensorflow-cpu"


def _is_installed(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True


def _data(dataset: Dataset, split: Split, repairs: Sequence[Repair]) -> dict[str, Any]:
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
            label: {name: int(count[place]) for name, count in counts.items()}
            for place, label in enumerate(dataset.classes)
        },
        "fingerprint": split.fingerprint,
        "repairs": [{"what": repair.what, "count": repair.count} for repair in repairs],
    }


def _model(name: str, title: str, runs: Sequence[Run], assessed: Assessment, classes: Sequence[str]) -> dict[str, Any]:
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
            for run, metrics in zip(runs, assessed.runs, strict=True)
        ],
        "metrics": {key: estimate.to_dict() for key, estimate in assessed.metrics.items()},
        "seeds": {key: estimate.to_dict() for key, estimate in assessed.seeds.items()},
        "per_class": assessed.per_class,
        "confusion": assessed.confusion.tolist(),
        "reliability": [
            {"confidence": confidence, "accuracy": accuracy, "count": count}
            for confidence, accuracy, count in zip(*assessed.reliability.to_dict().values(), strict=True)
        ],
    }
