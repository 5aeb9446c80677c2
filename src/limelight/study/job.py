"""Run a study: from the prepared data to a folder of results."""

import functools
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import limelight
from limelight import data
from limelight._progress import Progress
from limelight.models.training import Trainer, TrainingConfig
from limelight.study import results
from limelight.study.experiment import Experiment
from limelight.study.folder import EXPLANATION, Run, StudyFolder
from limelight.study.forecasting import Forecasting
from limelight.study.pipelines import Supervised
from limelight.study.setup import Setup
from limelight.study.translation import Translation


def build_experiment(setup: Setup) -> Experiment:
    """Encode the data of a study for the models of its task."""
    if isinstance(setup.dataset, data.Dataset) and setup.split is not None:
        return Supervised(setup.dataset, setup.split, setup.settings)
    if isinstance(setup.dataset, data.Panel):
        return Forecasting(setup.dataset, setup.settings)
    if isinstance(setup.dataset, data.Pairs) and setup.split is not None:
        return Translation(setup.dataset, setup.split, setup.settings)
    raise ValueError(f"`setup` must have the split of its data. Received: {setup!r}.")


def run(setup: Setup, *, fresh: bool = False, progress: Progress | None = None) -> tuple[dict[str, Any], Path]:
    """Run a study whose data are prepared.

    Args:
        setup: The data, settings and output folder, from `prepare`.
        fresh: Remove an earlier study from the folder first.
        progress: Prints the progress; silent by default.

    Returns:
        The results, as in `results.json`, and the path of the report.

    Raises:
        DataError: the data cannot be encoded for the models.
        UsageError: the folder belongs to something else, or holds a study of another configuration.
        TrainingError: the loss is not finite.
        OSError: a file cannot be written. Finished runs stay.
    """
    study = _Study(setup, progress or Progress(quiet=True))
    with StudyFolder(setup.out) as folder:
        folder.claim(setup.configuration(), fresh=fresh)
        return study.write_results(folder, study.collect_runs(folder)), setup.out / "report.html"


class _Study:
    """The experiment and progress of one study."""

    def __init__(self, setup: Setup, progress: Progress) -> None:
        self.setup, self.settings, self.progress = setup, setup.settings, progress
        self.experiment = build_experiment(setup)

    def collect_runs(self, folder: StudyFolder) -> dict[str, list[Run]]:
        """Return all runs of all models; train and store those that the folder lacks."""
        experiment = self.experiment
        seeds = range(1, self.settings.seeds + 1)
        trainers = {name: self._build_trainer(name) for name in experiment.architectures}
        stored = {(name, seed): folder.load_run(name, seed) for name in trainers for seed in seeds}
        self.progress.set_total(sum(trainers[name].max_steps for (name, _), run in stored.items() if run is None))
        if self.setup.reason is not None:
            self.progress.write(f"task: {self.settings.task}, because {self.setup.reason} (--task sets another)")
        self.progress.write(f"{self.setup.dataset.name}: {experiment.summary}")
        for repair in experiment.repairs:
            self.progress.write(f"  {repair}")
        runs: dict[str, list[Run]] = {name: [] for name in trainers}
        if experiment.baseline is not None:
            name = experiment.baseline
            runs[name] = [self._report_stored(folder.load_run(name, 1)) or self._fit_baseline(folder, name)]
        for name in experiment.architectures:
            # The compiled functions of a model take hundreds of megabytes: they go with its trainer.
            trainer = trainers.pop(name)
            for seed in seeds:
                run = self._report_stored(stored[name, seed]) or self._train(folder, trainer, name, seed)
                runs[name].append(run)
            del trainer
        return runs | {run.model: [run] for run in experiment.fixed_runs()}

    def write_results(self, folder: StudyFolder, runs: dict[str, list[Run]]) -> dict[str, Any]:
        """Write the attention model with the lowest validation loss, its examples, and the results."""
        out = folder.path
        self.progress.write("evaluating ...")
        architecture = self.experiment.architectures[0]
        best = min(runs[architecture], key=results.validation_loss)
        estimator = self.experiment.make_estimator(architecture, results.load_model(best), best.summary)
        estimator.save(out / "model.keras")
        samples = self.experiment.capture(estimator, best)
        if self.settings.explain:
            samples.sections["explanation"] = self._explain(folder, estimator, best)
        return results.write(out, self.setup, self.experiment, runs, samples)

    def _explain(self, folder: StudyFolder, estimator: Any, run: Run) -> dict[str, Any]:
        """Test whether the attention explains the predictions, unless the folder holds the result for the same run."""
        key = {"run": run.name, "digest": run.digest, "sample": self.settings.explain, "version": limelight.__version__}
        stored = folder.load_explanation(key)
        if stored is not None:
            self.progress.write("testing whether the attention explains the predictions: stored earlier")
            return stored
        self.progress.write("testing whether the attention explains the predictions ... (--explain 0 leaves it out)")
        checkpoint = folder.path / EXPLANATION
        result = self.experiment.explain(
            estimator, self.settings.explain, checkpoint=checkpoint, progress=self.progress
        )
        document = result.to_dict()
        folder.save_explanation(key, document)
        return document

    def _build_trainer(self, architecture: str) -> Trainer:
        settings, subsets = self.settings, self.experiment.subsets
        config = TrainingConfig(
            epochs=settings.epochs,
            epoch_steps=settings.epoch_steps,
            patience=settings.patience,
            batch_size=settings.batch_size,
            learning_rate=settings.learning_rate,
            averaging=settings.averaging,
        )
        build = functools.partial(self.experiment.build, architecture)
        objective, on_step = self.experiment.objective, self.progress.step
        return Trainer(build, subsets["train"], subsets["validation"], objective, config, on_step)

    def _train(self, folder: StudyFolder, trainer: Trainer, name: str, seed: int) -> Run:
        self.progress.start_run(f"{name}, seed {seed} of {self.settings.seeds}", trainer.max_steps)
        summary = trainer.fit(seed)
        predictions = self.experiment.predict(name, trainer, summary)
        return self._report(folder.save_run(name, seed, summary, predictions, trainer.export().save))

    def _fit_baseline(self, folder: StudyFolder, name: str) -> Run:
        self.progress.start_run(name, 0)
        predictions, summary = self.experiment.fit_baseline()
        return self._report(folder.save_run(name, 1, summary, predictions))

    def _report_stored(self, run: Run | None) -> Run | None:
        return None if run is None else self._report(run, ["stored earlier"])

    def _report(self, run: Run, notes: Iterable[str] = ()) -> Run:
        """Print one line about a run, and return the run."""
        epochs, quality = run.summary["epochs"], self.experiment.describe_run(run)
        facts = [
            *([f"{epochs} epoch{'' if epochs == 1 else 's'}, best {run.summary['best_epoch']}"] if epochs else []),
            f"{run.summary['seconds']:.0f} s",
            *([quality] if quality else []),
            *notes,
        ]
        self.progress.finish_run(f"{run.name}: {', '.join(facts)}")
        return run
