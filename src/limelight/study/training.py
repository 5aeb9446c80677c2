"""Train one Keras model from several seeds, stop on the validation part, and predict."""

import dataclasses
import math
import time
from collections.abc import Callable
from typing import Any, Protocol

import keras
import numpy as np

from limelight.data import Batch, LengthBatches
from limelight.study.errors import TrainingError


class Watcher(Protocol):
    """Sees each step of a training, and may end it by raising."""

    def step(self, steps: int) -> None:
        """Take note of so many steps."""
        ...


@dataclasses.dataclass(frozen=True, eq=False)
class Part:
    """One part of the data, encoded: sequences of ids or of steps, and the class of each."""

    sequences: list[Any]
    labels: np.ndarray


class Trainer:
    """One architecture, compiled once and trained from several seeds.

    Compiling takes longer than an epoch, so every seed is given to the same compiled model: its variables, those of the
    optimizer and the states of its random generators are set to what a new model of that seed has. A training depends on
    its seed alone, not on those before it.

    Args:
        build: Makes the model, not compiled.
        train: What is learned from.
        validation: What stops the training: the epoch with the lowest loss on it is kept.
        epochs: The most passes over `train`.
        patience: After how many epochs without a lower validation loss to stop.
        batch_size: Examples in a step.
        learning_rate: Step size of Adam.
        averaging: Share of the past in the running average of the weights that is validated and kept; 0 keeps the weights
            themselves. It evens out the last steps, and so what differs between seeds.
        watcher: Told of each step.
    """

    def __init__(
        self,
        build: Callable[[], keras.Model],
        train: Part,
        validation: Part,
        *,
        epochs: int,
        patience: int,
        batch_size: int,
        learning_rate: float,
        averaging: float,
        watcher: Watcher,
    ) -> None:
        self.build = build
        self.train_part, self.validation_part = train, validation
        self.epochs, self.patience = epochs, patience
        # Rows beyond the examples that there are would only be padding.
        self.batch_size = min(batch_size, len(train.sequences))
        self.learning_rate, self.averaging = learning_rate, averaging
        self.watcher = watcher
        self.model: keras.Model | None = None

    def fit(self, seed: int) -> dict[str, Any]:
        """Train from a seed.

        Returns:
            What the run tells: seconds, epochs, the best one, parameters, and the history: for each epoch the mean loss and
            accuracy over the examples of the train part as they were met, and those over the validation part after it.

        Raises:
            TrainingError: the loss is not a number any more.
        """
        start = time.perf_counter()
        model = self._fresh(seed)
        batches = LengthBatches(
            self.train_part.sequences, self.train_part.labels, batch_size=self.batch_size, shuffle_seed=seed
        )
        history: dict[str, list[float]] = {"loss": [], "accuracy": [], "val_loss": [], "val_accuracy": []}
        best, weights, average = 0, weights_of(model), Average(self.averaging)
        for epoch in range(self.epochs):
            trained = self._pass(model, batches, epoch, seed, average)
            newest = weights_of(model)
            model.set_weights(average.values)
            validated = self._validate()
            self._check(validated[0], f"on the validation part after epoch {epoch + 1}", seed)
            for values, value in zip(history.values(), (*trained, *validated), strict=True):
                values.append(value)
            if history["val_loss"][epoch] <= min(history["val_loss"]):
                best, weights = epoch, weights_of(model)
            if epoch - best >= self.patience:
                break
            model.set_weights(newest)
        model.set_weights(weights)
        return {
            "seconds": time.perf_counter() - start,
            "epochs": len(history["loss"]),
            "best_epoch": best + 1,
            "parameters": int(model.count_params()),
            "history": history,
        }

    @property
    def most_steps(self) -> int:
        """How many steps a training takes that is never stopped."""
        return self.epochs * -(-len(self.train_part.sequences) // self.batch_size)

    def predict(self, sequences: list[Any]) -> np.ndarray:
        """Return the probabilities (examples, classes) of the model as it was last trained."""
        if self.model is None:
            raise ValueError("`predict` needs a model that was trained. Call `fit` first.")
        return predict(self.model, sequences, self.batch_size)

    def save(self, path: Any) -> None:
        """Write the model as it was last trained, without the optimizer, to a .keras file."""
        if self.model is None:
            raise ValueError("`save` needs a model that was trained. Call `fit` first.")
        bare = self.build()
        bare.set_weights(self.model.get_weights())
        bare.save(path)

    def _fresh(self, seed: int) -> keras.Model:
        """Return the compiled model with the state of a new one."""
        keras.utils.set_random_seed(seed)
        new = self.build()
        if self.model is None:
            self.model = new
            optimizer = keras.optimizers.Adam(self.learning_rate)
            # The last batch is filled up with rows of weight 0: the loss is the mean over the others.
            loss = keras.losses.SparseCategoricalCrossentropy(reduction="mean_with_sample_weight")
            new.compile(optimizer, loss, weighted_metrics=["accuracy"])
            optimizer.build(new.trainable_variables)
        else:
            for variable, value in zip(self.model.variables, new.variables, strict=True):
                variable.assign(value)
            for variable in self.model.optimizer.variables:
                variable.assign(np.zeros(variable.shape))
            self.model.optimizer.learning_rate = self.learning_rate
        return self.model

    def _pass(
        self, model: keras.Model, batches: LengthBatches, epoch: int, seed: int, average: "Average"
    ) -> tuple[float, float]:
        """Go through the train part once; return the mean loss and accuracy over its examples."""
        if epoch == 0:
            # On torch, dropout draws from the process's own generator, as what came before may have done.
            keras.utils.set_random_seed(seed)
        totals = np.zeros(2)
        for step, batch in enumerate(batches.batches(epoch), start=1):
            self.watcher.step(1)
            filled = fill(batch, self.batch_size)
            weights = (np.arange(len(filled.values)) < len(batch.indices)).astype("float32")
            model.reset_metrics()
            logs = model.train_on_batch(inputs_of(filled), filled.labels, sample_weight=weights, return_dict=True)
            self._check(float(logs["loss"]), f"in epoch {epoch + 1}, step {step}", seed)
            average.update(weights_of(model))
            totals += len(batch.indices) * np.array([logs["loss"], logs["accuracy"]], dtype=np.float64)
        loss, accuracy = totals / len(self.train_part.sequences)
        return float(loss), float(accuracy)

    def _check(self, loss: float, where: str, seed: int) -> None:
        """Raise where a loss is not a number any more."""
        if not math.isfinite(loss):
            raise TrainingError(
                f"The loss must stay a number. It became {loss} {where}, with seed {seed}. The likely cause is a learning "
                f"rate that is too high ({self.learning_rate:g}): lower it with --learning-rate."
            )

    def _validate(self) -> tuple[float, float]:
        """Return loss and accuracy on the validation part."""
        part = self.validation_part
        probabilities = self.predict(part.sequences)
        chosen = probabilities[np.arange(len(part.labels)), part.labels]
        loss = -np.log(np.maximum(chosen, keras.config.epsilon())).mean()
        return float(loss), float((probabilities.argmax(1) == part.labels).mean())


class Average:
    r"""A running average of weights, which starts as their plain mean and forgets the first ones later.

    $$a_n = m\,a_{n-1} + (1 - m)\,w_n, \qquad m = \min(\text{momentum}, 1 - 1/n)$$

    Args:
        momentum: Share of the past, in [0, 1).

    References:
        Izmailov et al. 2018, arXiv:1803.05407 (averages of weights generalise better than the last ones).
    """

    def __init__(self, momentum: float) -> None:
        self.momentum, self.steps = momentum, 0
        self.values: list[np.ndarray] = []

    def update(self, weights: list[np.ndarray]) -> None:
        """Take the weights after a step in."""
        self.steps += 1
        past = min(self.momentum, 1 - 1 / self.steps)
        before = self.values or weights
        self.values = [past * old + (1 - past) * new for old, new in zip(before, weights, strict=True)]


def weights_of(model: keras.Model) -> list[np.ndarray]:
    """Return copies of a model's weights: on torch, those of Keras are the weights themselves."""
    return [np.array(weight) for weight in model.get_weights()]


def predict(model: keras.Model, sequences: list[Any], batch_size: int) -> np.ndarray:
    """Return the model's probabilities (examples, classes) for sequences of any lengths, in their order."""
    batches = LengthBatches(sequences, batch_size=batch_size)
    outputs = []
    for batch in batches:
        filled = fill(batch, batch_size)
        outputs.append(np.asarray(model.predict_on_batch(inputs_of(filled)))[: len(batch.indices)])
    return batches.restore(outputs).astype(np.float64)


def fill(batch: Batch, rows: int) -> Batch:
    """Repeat a batch's first row until it has `rows`: each other number of rows would be compiled anew.

    A repeated real row, since a row of nothing but padding has no mean.
    """
    missing = rows - len(batch.indices)
    if missing <= 0:
        return batch

    def grown(array: np.ndarray) -> np.ndarray:
        return np.concatenate([array, np.repeat(array[:1], missing, axis=0)])

    labels = None if batch.labels is None else grown(batch.labels)
    return Batch(grown(batch.values), grown(batch.mask), labels, batch.indices)


def inputs_of(batch: Batch) -> Any:
    """Return what the classifiers take: ids (B, T), or the steps (B, T, C) with their mask."""
    return batch.values if batch.values.ndim == 2 else {"steps": batch.values, "mask": batch.mask}
