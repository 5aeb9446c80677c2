"""Train one Keras model from several seeds, with early stopping, and predict."""

import dataclasses
import itertools
import math
import time
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from limelight.data import Batch, LengthBatches
from limelight.exceptions import TrainingError


@dataclasses.dataclass(frozen=True, eq=False)
class Subset:
    """The train, validation or test part of the data: sequences of ids or of steps, and the class of each."""

    sequences: list[Any]
    labels: np.ndarray


class Trainer:
    """One architecture, compiled once and trained from several seeds.

    Compiling takes longer than an epoch, so all seeds share one compiled model: its variables, those of the optimizer and
    the states of its random generators are reset to those of a new model with that seed. A training depends on its seed
    alone, not on the trainings before it.

    Args:
        build: Returns a new model, not compiled.
        train: The examples to train on.
        validation: The examples for early stopping: the epoch with the lowest loss on them is kept.
        epochs: The maximum number of epochs.
        epoch_steps: The minimum number of steps of an epoch: a small `train` is passed several times.
        patience: The number of epochs without a lower validation loss after which training stops.
        batch_size: Examples in a step.
        learning_rate: The learning rate of Adam.
        averaging: The momentum of the running average of the weights that is validated and kept, in [0, 1); 0 keeps the
            weights themselves. Averaging smooths the last steps, and reduces the variation between seeds.
        on_step: Called before each training step; it may raise to end the training.
    """

    # Why not `model.fit`: on TensorFlow it takes the padded length from the first two batches and refuses other lengths
    # (Keras 3.15). On JAX it saves nothing: one seed of movie-reviews took 53 s against 46 s, since `evaluate` compiles
    # another function for each length; further seeds took 3 s against 4 s an epoch.

    def __init__(
        self,
        build: Callable[[], keras.Model],
        train: Subset,
        validation: Subset,
        *,
        epochs: int,
        epoch_steps: int = 1,
        patience: int,
        batch_size: int,
        learning_rate: float,
        averaging: float,
        on_step: Callable[[], None],
    ) -> None:
        self.build = build
        self.train_set, self.validation_set = train, validation
        self.epochs, self.patience = epochs, patience
        # More rows than examples would be padding only.
        self.batch_size = min(batch_size, len(train.sequences))
        self.passes = -(-epoch_steps // -(-len(train.sequences) // self.batch_size))
        self.learning_rate, self.averaging = learning_rate, averaging
        self.on_step = on_step
        self.model: keras.Model | None = None

    def fit(self, seed: int) -> dict[str, Any]:
        """Train with a seed.

        Returns:
            A summary of the run: seconds, epochs, the best epoch, whether the limit of epochs stopped it (so that more training
            could have lowered the validation loss), parameters, and the history: for each epoch the mean loss and accuracy
            over the train part during the epoch, and those over the validation part after it.

        Raises:
            TrainingError: the loss is not finite.
        """
        start = time.perf_counter()
        model = self._reset(seed)
        batches = LengthBatches(
            self.train_set.sequences, self.train_set.labels, batch_size=self.batch_size, shuffle_seed=seed
        )
        history: dict[str, list[float]] = {"loss": [], "accuracy": [], "val_loss": [], "val_accuracy": []}
        best_epoch, best_weights, average = 0, copy_weights(model), RunningAverage(self.averaging)
        stopped_by_limit = False
        for epoch in range(self.epochs):
            train_results = self._train_epoch(model, batches, epoch, seed, average)
            current_weights = copy_weights(model)
            model.set_weights(average.values)
            validation_results = self._validate()
            self._check_loss(validation_results[0], f"on the validation part after epoch {epoch + 1}", seed)
            for values, value in zip(history.values(), (*train_results, *validation_results), strict=True):
                values.append(value)
            if history["val_loss"][epoch] <= min(history["val_loss"]):
                best_epoch, best_weights = epoch, copy_weights(model)
            if epoch - best_epoch >= self.patience:
                break
            model.set_weights(current_weights)
        else:
            stopped_by_limit = True
        model.set_weights(best_weights)
        return {
            "seconds": time.perf_counter() - start,
            "epochs": len(history["loss"]),
            "best_epoch": best_epoch + 1,
            "stopped_by_limit": stopped_by_limit,
            "parameters": int(model.count_params()),
            "history": history,
        }

    @property
    def max_steps(self) -> int:
        """The number of steps of a training without early stopping."""
        return self.epochs * self.passes * -(-len(self.train_set.sequences) // self.batch_size)

    def predict(self, sequences: list[Any]) -> np.ndarray:
        """Return the class probabilities (examples, classes) of the model from the last `fit`."""
        if self.model is None:
            raise ValueError("`predict` needs a trained model. Call `fit` first.")
        return predict(self.model, sequences, self.batch_size)

    def save(self, path: Any) -> None:
        """Write the model from the last `fit` to a .keras file, without the optimizer."""
        if self.model is None:
            raise ValueError("`save` needs a trained model. Call `fit` first.")
        model = self.build()
        model.set_weights(self.model.get_weights())
        model.save(path)

    def _reset(self, seed: int) -> keras.Model:
        """Return the compiled model with the state of a new model."""
        keras.utils.set_random_seed(seed)
        new_model = self.build()
        if self.model is None:
            self.model = new_model
            optimizer = keras.optimizers.Adam(self.learning_rate)
            # The last batch is filled with rows of weight 0, which the mean must ignore.
            loss = keras.losses.SparseCategoricalCrossentropy(reduction="mean_with_sample_weight")
            new_model.compile(optimizer, loss, weighted_metrics=["accuracy"])
            optimizer.build(new_model.trainable_variables)
        else:
            for variable, value in zip(self.model.variables, new_model.variables, strict=True):
                variable.assign(value)
            for variable in self.model.optimizer.variables:
                variable.assign(np.zeros(variable.shape))
            self.model.optimizer.learning_rate = self.learning_rate
        return self.model

    def _train_epoch(
        self, model: keras.Model, batches: LengthBatches, epoch: int, seed: int, average: "RunningAverage"
    ) -> tuple[float, float]:
        """Train on each example once in each pass of the epoch; return the mean loss and accuracy."""
        if epoch == 0:
            # On torch, dropout draws from the global generator, which earlier code may have used.
            keras.utils.set_random_seed(seed)
        totals = np.zeros(2)
        passes = range(epoch * self.passes, (epoch + 1) * self.passes)
        for step, batch in enumerate(itertools.chain.from_iterable(map(batches.batches, passes)), start=1):
            self.on_step()
            filled = fill_batch(batch, self.batch_size)
            sample_weight = (np.arange(self.batch_size) < len(batch.indices)).astype("float32")
            model.reset_metrics()
            inputs = model_inputs(filled.values, filled.mask)
            logs = model.train_on_batch(inputs, filled.labels, sample_weight=sample_weight, return_dict=True)
            self._check_loss(float(logs["loss"]), f"in epoch {epoch + 1}, step {step}", seed)
            average.update(copy_weights(model))
            totals += len(batch.indices) * np.array([logs["loss"], logs["accuracy"]], dtype=np.float64)
        loss, accuracy = totals / (self.passes * len(self.train_set.sequences))
        return float(loss), float(accuracy)

    def _check_loss(self, loss: float, where: str, seed: int) -> None:
        if not math.isfinite(loss):
            raise TrainingError(
                f"The loss must stay finite. It became {loss} {where}, with seed {seed}. The learning rate "
                f"({self.learning_rate:g}) is probably too high: lower it with --learning-rate."
            )

    def _validate(self) -> tuple[float, float]:
        """Return loss and accuracy on the validation part."""
        labels = self.validation_set.labels
        probabilities = self.predict(self.validation_set.sequences)
        true_probabilities = probabilities[np.arange(len(labels)), labels]
        loss = -np.log(np.maximum(true_probabilities, keras.config.epsilon())).mean()
        return float(loss), float((probabilities.argmax(1) == labels).mean())


class RunningAverage:
    r"""A running average of weights: their mean at first, an exponential moving average later.

    (`keras.callbacks.SwapEMAWeights` starts from the weights of the first step instead.)

    $$a_n = m\,a_{n-1} + (1 - m)\,w_n, \qquad m = \min(\text{momentum}, 1 - 1/n)$$

    Args:
        momentum: The weight of the previous average, in [0, 1).

    References:
        Izmailov et al. 2018, arXiv:1803.05407 (averaged weights generalize better than the last ones).
    """

    def __init__(self, momentum: float) -> None:
        self.momentum, self.steps = momentum, 0
        self.values: list[np.ndarray] = []

    def update(self, weights: list[np.ndarray]) -> None:
        """Add the weights after a step."""
        self.steps += 1
        momentum = min(self.momentum, 1 - 1 / self.steps)
        average = self.values or weights
        self.values = [momentum * old + (1 - momentum) * new for old, new in zip(average, weights, strict=True)]


def copy_weights(model: keras.Model) -> list[np.ndarray]:
    """Return copies of a model's weights: on torch, `get_weights` returns views."""
    return [np.array(weight) for weight in model.get_weights()]


def predict(model: keras.Model, sequences: list[Any], batch_size: int) -> np.ndarray:
    """Return the model's probabilities (examples, classes) for sequences of any lengths, in the order given."""
    batches = LengthBatches(sequences, batch_size=batch_size)
    outputs = []
    for batch in batches:
        filled = fill_batch(batch, batch_size)
        inputs = model_inputs(filled.values, filled.mask)
        outputs.append(np.asarray(model.predict_on_batch(inputs))[: len(batch.indices)])
    return batches.restore(outputs).astype(np.float64)


def fill_batch(batch: Batch, rows: int) -> Batch:
    """Repeat a batch's first row until there are `rows`, because each number of rows is compiled separately.

    A real row is repeated, because the mean of a row of padding is undefined.
    """
    missing = rows - len(batch.indices)
    if missing <= 0:
        return batch

    def extend(array: np.ndarray) -> np.ndarray:
        return np.concatenate([array, np.repeat(array[:1], missing, axis=0)])

    labels = None if batch.labels is None else extend(batch.labels)
    return Batch(extend(batch.values), extend(batch.mask), labels, batch.indices)


def model_inputs(values: np.ndarray, mask: np.ndarray) -> Any:
    """Return the inputs of a classifier: ids (B, T), or a dictionary of the steps (B, T, C) and their mask (B, T)."""
    return values if values.ndim == 2 else {"steps": values, "mask": mask}
