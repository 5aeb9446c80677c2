"""The interface between a study and the tasks."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import keras
import numpy as np

from limelight.data import Repair
from limelight.explanation import Explanation
from limelight.models._estimator import Estimator
from limelight.models.objectives import Objective
from limelight.models.training import Trainer
from limelight.study.evaluation import Evaluation, Outcome, Samples
from limelight.study.folder import Run


class Experiment(Protocol):
    """The task of a study: encoded data, models, baselines and metrics.

    Attributes:
        subsets: The examples to train on ("train") and those for early stopping ("validation").
        objective: The loss of the training.
        architectures: The names of the Keras models that are compared, the one with attention first.
        baseline: The name of the simple model that is fitted once and stored; None if there is none.
        trivial: The name of the model that learns next to nothing, which a training must beat to count.
        trivial_title: Its title in sentences.
        titles: The title of each model in tables.
        names: The title in sentences of each model that is compared with the first.
        repairs: What reading and encoding changed.
        notes: Sentences on the data that limit what the results show.
    """

    subsets: dict[str, Any]
    objective: Objective
    architectures: tuple[str, ...]
    baseline: str | None
    trivial: str
    trivial_title: str
    titles: dict[str, str]
    names: dict[str, str]
    repairs: list[Repair]
    notes: list[str]

    @property
    def summary(self) -> str:
        """The sizes of the parts in words."""
        ...

    def build(self, architecture: str) -> keras.Model:
        """Return a new network, not compiled."""
        ...

    def predict(self, architecture: str, trainer: Trainer, history: dict[str, Any]) -> dict[str, np.ndarray]:
        """Return the predictions of a trained model on the parts that the evaluation needs."""
        ...

    def fit_baseline(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Fit the simple model; return its predictions and the summary of the run."""
        ...

    def fixed_runs(self) -> list[Run]:
        """Return the runs of the models that are computed at once, the trivial one among them."""
        ...

    def make_estimator(self, architecture: str, model: keras.Model, history: dict[str, Any]) -> Estimator:
        """Return an estimator that predicts with a trained model from raw inputs."""
        ...

    def describe_run(self, run: Run) -> str:
        """Return the quality of a run on the validation part in words; empty if it was not measured."""
        ...

    def evaluate(self, runs: Mapping[str, Sequence[Run]]) -> Outcome:
        """Evaluate and compare all models on the test part."""
        ...

    def capture(self, estimator: Any, run: Run) -> Samples:
        """Choose test examples, and capture the attention of a model on them."""
        ...

    def explain(self, estimator: Any, sample: int, **settings: Any) -> Explanation:
        """Test on at most `sample` test examples whether the attention explains the predictions."""
        ...

    def describe_data(self) -> dict[str, Any]:
        """Return the kind and the sizes of the data, ready for JSON."""
        ...

    def draw(self, folder: Path, evaluations: Mapping[str, Evaluation], samples: Samples) -> None:
        """Draw what fits the task into a folder."""
        ...
