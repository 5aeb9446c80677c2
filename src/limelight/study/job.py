"""Run a study: from the prepared data to a folder of results."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras

from limelight._progress import Progress
from limelight.layers import AttentionPooling
from limelight.models.objectives import Classification
from limelight.models.training import Trainer, TrainingConfig
from limelight.study import results, verdict
from limelight.study.evaluation import capture_examples, choose_examples
from limelight.study.folder import Run, StudyFolder
from limelight.study.pipelines import build_pipeline
from limelight.study.settings import Settings
from limelight.study.setup import Setup

# The pooling of the LSTM states, in which the two Keras models differ.
POOLINGS: dict[str, Callable[[], keras.Layer]] = {
    "attention": lambda: AttentionPooling(name="attention"),
    "mean": lambda: keras.layers.GlobalAveragePooling1D(name="mean"),
}
LINEAR = "linear"


def run(
    settings: Settings, setup: Setup, *, fresh: bool = False, progress: Progress | None = None
) -> tuple[dict[str, Any], Path]:
    """Run a study whose data are prepared.

    Args:
        settings: The settings of the study.
        setup: The data and the output folder, from `prepare`.
        fresh: Remove an earlier study from the folder first.
        progress: Prints the progress; silent by default.

    Returns:
        The results, as in `results.json`, and the path of the report.

    Raises:
        UsageError: the folder belongs to something else, or holds a study of another configuration.
        TrainingError: the loss is not finite.
        OSError: a file cannot be written. Finished runs stay.
    """
    study = _Study(settings, setup, progress or Progress(quiet=True))
    with StudyFolder(setup.out) as folder:
        folder.claim(setup.configuration(settings), fresh=fresh)
        return study.write_results(folder.path, study.collect_runs(folder)), setup.out / "report.html"


class _Study:
    """The data, models and progress of one study."""

    def __init__(self, settings: Settings, setup: Setup, progress: Progress) -> None:
        self.settings, self.progress = settings, progress
        self.dataset, self.split = setup.dataset, setup.split
        self.pipeline = build_pipeline(self.dataset, self.split, settings)
        self.repairs = [*self.dataset.repairs, *self.pipeline.repairs]
        self.titles = {
            "attention": "LSTM + attention",
            "mean": "LSTM + mean pooling",
            LINEAR: self.pipeline.baseline_title,
            verdict.MAJORITY: "Class shares",
        }

    def collect_runs(self, folder: StudyFolder) -> dict[str, list[Run]]:
        """Return all runs of all models; train and store those that the folder lacks."""
        seeds = range(1, self.settings.seeds + 1)
        trainers = {name: self._build_trainer(pooling) for name, pooling in POOLINGS.items()}
        stored = {(name, seed): folder.load_run(name, seed) for name in POOLINGS for seed in seeds}
        self.progress.set_total(sum(trainers[name].max_steps for (name, _), run in stored.items() if run is None))
        train, validation, test = (f"{len(subset.targets):,}" for subset in self.pipeline.subsets.values())
        self.progress.write(
            f"{self.dataset.name}: {train} training, {validation} validation and {test} test examples in "
            f"{len(self.dataset.classes)} classes"
        )
        for repair in self.repairs:
            self.progress.write(f"  {repair}")
        runs: dict[str, list[Run]] = {name: [] for name in POOLINGS}
        runs[LINEAR] = [self._report_stored(folder.load_run(LINEAR, 1)) or self._fit_linear(folder)]
        for name in POOLINGS:
            # The compiled functions of a model take hundreds of megabytes: they go with its trainer.
            trainer = trainers.pop(name)
            for seed in seeds:
                run = self._report_stored(stored[name, seed]) or self._train(folder, trainer, name, seed)
                runs[name].append(run)
            del trainer
        labels = {name: subset.targets for name, subset in self.pipeline.subsets.items()}
        runs[verdict.MAJORITY] = [verdict.majority_run(labels, len(self.dataset.classes))]
        return runs

    def write_results(self, out: Path, runs: dict[str, list[Run]]) -> dict[str, Any]:
        """Write the attention model with the lowest validation loss, its examples, and the results."""
        self.progress.write("evaluating ...")
        best = min(runs["attention"], key=results.validation_loss)
        model = results.load_model(best)
        self.pipeline.make_estimator(model, best.summary).save(out / "model.keras")
        truth = self.pipeline.subsets["test"].targets
        probabilities = best.probabilities["test"]
        examples, maps = capture_examples(
            model,
            self.pipeline,
            choose_examples(probabilities, truth, self.settings.examples),
            dataset_indices=self.split.test,
            probabilities=probabilities,
            classes=self.dataset.classes,
        )
        return results.write(
            out,
            settings=self.settings,
            dataset=self.dataset,
            split=self.split,
            repairs=self.repairs,
            truth=truth,
            runs=runs,
            titles=self.titles,
            examples=examples,
            maps=maps,
            notes=self.pipeline.notes,
        )

    def _build_trainer(self, pooling: Callable[[], keras.Layer]) -> Trainer:
        settings = self.settings
        config = TrainingConfig(
            epochs=settings.epochs,
            epoch_steps=settings.epoch_steps,
            patience=settings.patience,
            batch_size=settings.batch_size,
            learning_rate=settings.learning_rate,
            averaging=settings.averaging,
        )
        return Trainer(
            functools.partial(self.pipeline.build, pooling),
            self.pipeline.subsets["train"],
            self.pipeline.subsets["validation"],
            Classification(),
            config,
            self.progress.step,
        )

    def _train(self, folder: StudyFolder, trainer: Trainer, name: str, seed: int) -> Run:
        self.progress.start_run(f"{name}, seed {seed} of {self.settings.seeds}", trainer.max_steps)
        summary = trainer.fit(seed)
        subsets = self.pipeline.subsets
        probabilities = {part: trainer.predict(subsets[part]) for part in ("validation", "test")}
        return self._report(folder.save_run(name, seed, summary, probabilities, trainer.export().save))

    def _fit_linear(self, folder: StudyFolder) -> Run:
        self.progress.start_run(LINEAR, 0)
        probabilities, summary = self.pipeline.fit_baseline()
        return self._report(folder.save_run(LINEAR, 1, summary, probabilities))

    def _report_stored(self, run: Run | None) -> Run | None:
        return None if run is None else self._report(run, "stored earlier")

    def _report(self, run: Run, *notes: str) -> Run:
        """Print one line about a run, and return the run."""
        labels = self.pipeline.subsets["validation"].targets
        accuracy = float((run.probabilities["validation"].argmax(1) == labels).mean())
        epochs = run.summary["epochs"]
        facts = [
            *([f"{epochs} epoch{'' if epochs == 1 else 's'}, best {run.summary['best_epoch']}"] if epochs else []),
            f"{run.summary['seconds']:.0f} s",
            f"validation accuracy {100 * accuracy:.1f} %",
            *notes,
        ]
        self.progress.finish_run(f"{run.name}: {', '.join(facts)}")
        return run
