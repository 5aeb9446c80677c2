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

import limelight
from limelight import _files, plot, report
from limelight._formatting import get_metric
from limelight.evaluate import Comparison
from limelight.models.keras_files import load_keras_model
from limelight.study import verdict
from limelight.study.evaluation import Evaluation, Samples, comparison_to_dict
from limelight.study.experiment import Experiment
from limelight.study.folder import Run
from limelight.study.settings import flag
from limelight.study.setup import Setup

SCHEMA = 1


def validation_loss(run: Run) -> float:
    """Return the lowest loss of a run on the validation part: that of the epoch that was kept."""
    return min(run.summary["history"]["val_loss"])


def load_model(run: Run) -> keras.Model:
    """Load the model of a run."""
    if run.keras_model is None:
        raise ValueError(f"`run` must have a saved Keras model. Received: {run.name}.")
    return load_keras_model(run.keras_model)


def write(
    out: Path, setup: Setup, experiment: Experiment, runs: Mapping[str, Sequence[Run]], samples: Samples
) -> dict[str, Any]:
    """Evaluate the runs and write `figures/`, `results.json` and `report.html`, in this order.

    Args:
        out: The output folder.
        setup: The data and settings of the study.
        experiment: The experiment of its task.
        runs: For each model its runs, one for each seed; the first model is compared with each other model.
        samples: Test examples with their attention.

    Returns:
        The results.
    """
    outcome, names = experiment.evaluate(runs), experiment.names
    by_title = {title: name for name, title in names.items()}
    caveats = verdict.find_caveats(runs, names, experiment.trivial, experiment.trivial_title)
    entries = [
        verdict.withdraw_claim(comparison_to_dict(comparison, by_title, outcome.examples_title), caveats, names)
        for comparison in outcome.comparisons
    ]
    shown = [comparison.shown for comparison in outcome.comparisons]
    dataset = setup.dataset
    results = {
        "schema_version": SCHEMA,
        "task": setup.settings.task,
        "command": _reproduce_command(setup),
        "title": f"Does attention help on {dataset.name}?",
        "answer": verdict.answer(entries, shown, outcome.metric),
        "verdict": verdict.write(entries, shown, outcome.metric, outcome.preface),
        "caveats": [*caveats.values(), *experiment.notes, *outcome.notes],
        "data": {
            "name": dataset.name,
            "source": dataset.source,
            **experiment.describe_data(),
            "fingerprint": setup.configuration()["fingerprint"],
            "repairs": [{"what": repair.what, "count": repair.count} for repair in experiment.repairs],
        },
        "environment": _describe_environment(setup.settings.task),
        "settings": setup.settings.to_dict(),
        "models": [
            _describe_model(name, experiment.titles[name], runs[name], outcome.evaluations[name]) for name in runs
        ],
        "comparisons": entries,
        "examples": samples.examples,
        **samples.sections,
    }
    _draw_quality(out / "figures", runs, experiment.titles, outcome.comparisons)
    experiment.draw(out / "figures", outcome.evaluations, samples)
    _draw_examples(out / "figures", samples)
    _files.write_json(out / "results.json", results)
    report.write(out / "report.html", samples.maps, results=results)
    return results


def _reproduce_command(setup: Setup) -> str:
    """Return the command that reproduces the study: the backend, and each setting that is not the default."""
    settings = setup.given or setup.settings
    words = ["limelight", "study", settings.data]
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        if field.name != "data" and value != field.default:
            words += [flag(field.name), ",".join(map(str, value)) if isinstance(value, tuple) else str(value)]
    return f"KERAS_BACKEND={keras.backend.backend()} {shlex.join(words)}"


def _describe_environment(task: str | None) -> dict[str, str]:
    """Return the versions that the study ran on."""
    backend = keras.backend.backend()
    # TensorFlow is installed by either of two packages.
    is_cpu_package = backend == "tensorflow" and not any(metadata.distributions(name="tensorflow"))
    names = ["tensorflow-cpu" if is_cpu_package else backend, "numpy", "scikit-learn", "scipy", "tokenizers"]
    names += ["sacrebleu", "jiwer"] if task == "translate" else []
    return {
        "limelight": limelight.__version__,
        "python": platform.python_version(),
        "keras": keras.__version__,
        "backend": backend,
        **{name: metadata.version(name) for name in names},
        "system": f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPU cores",
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
        **evaluation.to_dict(),
    }


def _draw_quality(
    folder: Path, runs: Mapping[str, Sequence[Run]], titles: Mapping[str, str], comparisons: Sequence[Comparison]
) -> None:
    """Draw learning curves and differences into `folder`."""
    histories = {titles[name]: [run.summary["history"] for run in model_runs] for name, model_runs in runs.items()}
    quantities = {key for each in histories.values() for history in each for key in history if key.startswith("val_")}
    for quantity in sorted(quantities):
        name = quantity.removeprefix("val_")
        # The baselines have no epochs.
        curves = {title: [history[quantity] for history in each] for title, each in histories.items() if all(each)}
        drawing = plot.curves(curves, metric=f"validation {get_metric(name).label}")
        plot.save(folder / f"{name}.svg", drawing)
    for metric in dict.fromkeys(comparison.metric for comparison in comparisons):
        chosen = [comparison for comparison in comparisons if comparison.metric == metric]
        plot.save(folder / f"difference-{metric}.svg", plot.difference(chosen))


def _draw_examples(folder: Path, samples: Samples) -> None:
    """Draw the first example of each kind into `folder`: a text as highlighted words, a series as a heatmap."""
    for old in folder.glob("example-*.svg"):
        old.unlink()
    drawn = set()
    for index, example in enumerate(samples.examples):
        if samples.maps is None or example["kind"] in drawn:
            continue
        drawn.add(example["kind"])
        title = f"{example['truth']}, predicted {example['prediction']}"
        if example["probability"] is not None:
            title += f" ({100 * example['probability']:.0f} %)"
        if example["text"] is None:
            drawing = plot.heatmap(samples.maps["attention"], example=index, title=title)
        else:
            drawing = plot.text(example["tokens"], example["weights"], title=title)
        plot.save(folder / f"example-{example['kind'].replace(' ', '-')}.svg", drawing)
