"""The main job, from a source of data to a folder of results."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras

from limelight.layers import AttentionPooling
from limelight.study import examples as example_choice
from limelight.study import pipelines, results
from limelight.study.folder import Run, StudyFolder
from limelight.study.progress import Progress
from limelight.study.settings import Settings
from limelight.study.setup import Prepared
from limelight.study.training import Trainer

# What pools the states of the LSTM in each of the two models that are otherwise the same.
POOLINGS: dict[str, Callable[[], keras.Layer]] = {
    "attention": lambda: AttentionPooling(name="attention"),
    "mean": lambda: keras.layers.GlobalAveragePooling1D(name="mean"),
}
LINEAR = "linear"


def run(
    settings: Settings, prepared: Prepared, *, fresh: bool = False, progress: Progress | None = None
) -> tuple[dict[str, Any], Path]:
    """Train with and without attention, compare, look at examples, and write everything to the output folder.

    Runs that the folder already holds are not trained again. Each new one is kept as soon as it is finished.

    Args:
        settings: What to do.
        prepared: The data, as `prepare` read them.
        fresh: Remove what an earlier study left in the folder.
        progress: Hears what happens; silent when not given.

    Returns:
        The results, as `results.json` holds them, and the path of the report.

    Raises:
        UsageError: the folder is another's, or holds a study of another configuration.
        TrainingError: a loss is not a number.
        OSError: a file cannot be written. Finished runs stay.
    """
    study = _Study(settings, prepared, progress or Progress(quiet=True))
    with StudyFolder(prepared.out) as folder:
        folder.claim(prepared.configuration(settings), fresh=fresh)
        return study.write(folder.path, study.runs(folder)), prepared.out / "report.html"


class _Study:
    """One study: its data, and what is done with them."""

    def __init__(self, settings: Settings, prepared: Prepared, progress: Progress) -> None:
        self.settings, self.progress = settings, progress
        self.dataset, self.split = prepared.dataset, prepared.split
        self.material = pipelines.of(self.dataset, self.split, settings)
        self.titles = {
            "attention": "LSTM + attention",
            "mean": "LSTM + mean pooling",
            LINEAR: self.material.baseline_title,
        }

    def runs(self, folder: StudyFolder) -> dict[str, list[Run]]:
        """Return every run of every model, those that the folder lacks trained and kept."""
        seeds = range(1, self.settings.seeds + 1)
        trainers = {name: self._trainer(pooling) for name, pooling in POOLINGS.items()}
        wanted = [(name, seed) for name in POOLINGS for seed in seeds]
        missing = [each for each in wanted if folder.finished(*each) is None]
        steps = next(iter(trainers.values())).most_steps
        self.progress.plan(steps * len(missing))
        counts = ", ".join(f"{len(part.labels):,} {name}" for name, part in self.material.parts.items())
        self.progress.say(f"{self.dataset.name}: {counts} examples, {len(self.dataset.classes)} classes")
        for repair in (*self.dataset.repairs, *self.material.repairs):
            self.progress.say(f"{self.dataset.name}: {repair}")
        runs: dict[str, list[Run]] = {name: [] for name in POOLINGS}
        linear = folder.finished(LINEAR, 1)
        runs[LINEAR] = [self._told(linear, kept=True) if linear else self._fit_linear(folder)]
        for name, seed in wanted:
            found = folder.finished(name, seed)
            runs[name].append(
                self._told(found, kept=True) if found else self._train(folder, trainers[name], name, seed)
            )
        return runs

    def write(self, out: Path, runs: dict[str, list[Run]]) -> dict[str, Any]:
        """Write the model that stopped best, what it looks at, and the results. Return the results."""
        self.progress.say("evaluating ...")
        best = min(runs["attention"], key=results.validation_loss)
        model = results.load_model(best)
        self.material.save(out)
        results.keep_model(best, out)
        truth = self.material.parts["test"].labels
        probabilities = best.probabilities["test"]
        examples, maps = example_choice.look(
            model,
            self.material,
            example_choice.choose(probabilities, truth, self.settings.examples),
            identities=self.split.test,
            probabilities=probabilities,
            classes=self.dataset.classes,
        )
        return results.write(
            out,
            settings=self.settings,
            dataset=self.dataset,
            split=self.split,
            repairs=[*self.dataset.repairs, *self.material.repairs],
            truth=truth,
            runs=runs,
            titles=self.titles,
            examples=examples,
            maps=maps,
        )

    def _trainer(self, pooling: Callable[[], keras.Layer]) -> Trainer:
        settings = self.settings
        return Trainer(
            functools.partial(self.material.build, pooling),
            self.material.parts["train"],
            self.material.parts["validation"],
            epochs=settings.epochs,
            patience=settings.patience,
            batch_size=settings.batch_size,
            learning_rate=settings.learning_rate,
            averaging=settings.averaging,
            watcher=self.progress,
        )

    def _train(self, folder: StudyFolder, trainer: Trainer, name: str, seed: int) -> Run:
        """Train one run, keep it and tell of it."""
        self.progress.begin(f"{name}, seed {seed} of {self.settings.seeds}", trainer.most_steps)
        summary = trainer.fit(seed)
        probabilities = {part: trainer.predict(self.material.parts[part].sequences) for part in ("validation", "test")}
        return self._told(folder.keep(name, seed, summary, probabilities, trainer.save))

    def _fit_linear(self, folder: StudyFolder) -> Run:
        self.progress.begin(LINEAR, 0)
        probabilities, summary = self.material.fit_baseline()
        return self._told(folder.keep(LINEAR, 1, summary, probabilities))

    def _told(self, run: Run, kept: bool = False) -> Run:
        """Print a run's summary line, and return the run."""
        part = self.material.parts["validation"]
        accuracy = float((run.probabilities["validation"].argmax(1) == part.labels).mean())
        epochs = run.summary["epochs"]
        facts = [
            *([f"{epochs} epochs, best {run.summary['best_epoch']}"] if epochs else []),
            f"{run.summary['seconds']:.0f} s",
            f"validation accuracy {100 * accuracy:.1f} %",
            *(["kept from before"] if kept else []),
        ]
        self.progress.end(f"{run.name}: {', '.join(facts)}")
        return run
