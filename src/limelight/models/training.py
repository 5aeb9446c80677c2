"""Train a Keras model from one or several seeds, with early stopping, and predict."""

import contextlib
import dataclasses
import hashlib
import itertools
import json
import math
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np

from limelight import _files
from limelight.data.batching import plan_batches
from limelight.exceptions import TrainingError, UsageError
from limelight.models.examples import Examples
from limelight.models.objectives import Objective
from limelight.models.tensorboard import EventWriter, describe_heads

# The examples that tell the data of a checkpoint from other data; reading millions from a disk would take minutes.
_MAX_HASHED = 20_000


@dataclasses.dataclass
class TrainingConfig:
    """Settings of a training.

    Args:
        epochs: The maximum number of epochs.
        batch_size: Examples in a step.
        learning_rate: The learning rate of Adam, after the warm-up.
        schedule: "constant", or "cosine": down to 0 over the maximum number of steps.
        warmup: Share of the maximum number of steps in which the learning rate rises from 0, in [0, 1).
        clip_norm: Largest norm of the gradient of all weights together; None for no limit.
        patience: Number of epochs without a lower validation loss after which training stops.
        epoch_steps: Minimum number of steps of an epoch: a small training set is passed several times.
        averaging: Momentum of the running average of the weights that is validated and kept, in [0, 1); 0 keeps the weights
            themselves. Averaging smooths the last steps, and reduces the variation between seeds.
        precision: A dtype policy of Keras's such as "mixed_bfloat16"; Keras's current one when not given.
        devices: Number of devices that share each batch, or "all"; JAX only. One when not given.
        checkpoint: A file that holds the state of an unfinished training, from which the next `fit` goes on in the middle of an
            epoch, to the same result. It is removed at the end.
        checkpoint_seconds: Time between two writes of it.
        tensorboard: A folder of logs for TensorBoard, one folder in it for each seed: after each epoch the losses and metrics,
            and of a few validation examples the mean entropy and the largest logit of each head.
    """

    epochs: int = 20
    batch_size: int = 64
    learning_rate: float = 2e-3
    schedule: str = "constant"
    warmup: float = 0.0
    clip_norm: float | None = None
    patience: int = 2
    epoch_steps: int = 1
    averaging: float = 0.98
    precision: str | None = None
    devices: int | str | None = None
    checkpoint: str | os.PathLike[str] | None = None
    checkpoint_seconds: float = 60.0
    tensorboard: str | os.PathLike[str] | None = None

    def __post_init__(self) -> None:
        if self.schedule not in ("constant", "cosine"):
            raise ValueError(f'`schedule` must be "constant" or "cosine". Received: schedule={self.schedule!r}.')
        for name in ("epochs", "batch_size", "epoch_steps"):
            if not isinstance(getattr(self, name), int | np.integer) or getattr(self, name) < 1:
                raise ValueError(f"`{name}` must be a positive integer. Received: {name}={getattr(self, name)!r}.")
        for name in ("warmup", "averaging"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"`{name}` must be in [0, 1). Received: {name}={getattr(self, name)!r}.")


class Trainer:
    """One architecture, compiled once and trained from several seeds.

    Compiling takes longer than an epoch, so all seeds share one compiled model: its variables, those of the optimizer and
    the states of its random generators are reset to those of a new model with that seed. A training depends on its seed
    alone, not on the trainings before it.

    Args:
        build: Returns a new model, not compiled.
        train: The examples to train on.
        validation: The examples for early stopping: the epoch with the lowest loss on them is kept.
        objective: The loss.
        config: How to train.
        on_step: Called before each training step; it may raise to end the training.
        change_inputs: Called in each training step with the model, its inputs, a generator of random numbers and the share of
            the maximum number of steps that is over; it returns the inputs to train on.
    """

    # Why not `model.fit`: on TensorFlow it takes the padded length from the first two batches and refuses other lengths
    # (Keras 3.15). On JAX it saves nothing: one seed of movie-reviews took 53 s against 46 s, since `evaluate` compiles
    # another function for each length; further seeds took 3 s against 4 s an epoch.

    def __init__(
        self,
        build: Callable[[], keras.Model],
        train: Examples,
        validation: Examples,
        objective: Objective,
        config: TrainingConfig,
        on_step: Callable[[], None] = lambda: None,
        change_inputs: Callable[[keras.Model, Any, np.random.Generator, float], Any] | None = None,
    ) -> None:
        self.build, self.objective, self.config, self.on_step = build, objective, config, on_step
        self.change_inputs = change_inputs
        self.train_set, self.validation_set = train, validation
        # More rows than examples would be padding only.
        self.batch_size = min(config.batch_size, len(train))
        if config.devices is not None:
            self.batch_size += -self.batch_size % len(_list_devices(config.devices))
        self.passes = -(-config.epoch_steps // self._steps_of_pass)
        weights = getattr(train, "weights", None)
        # None if all examples weigh the same.
        self._mean_weight = None if weights is None or np.ptp(weights) == 0 else float(np.mean(weights, dtype=float))
        self.model: keras.Model | None = None
        self._first_optimizer_state: list[np.ndarray] = []
        self._data_hashes: list[str] = []

    @property
    def _steps_of_pass(self) -> int:
        return -(-len(self.train_set) // self.batch_size)

    @property
    def max_steps(self) -> int:
        """The number of steps of a training without early stopping."""
        return self.config.epochs * self.passes * self._steps_of_pass

    def fit(self, seed: int) -> dict[str, Any]:
        """Train with a seed.

        Returns:
            A summary of the run: seconds, epochs, the best epoch, whether the limit of epochs stopped it (so that more training
            could have lowered the validation loss), parameters, and the history: for each epoch the mean loss and metric
            over the train part during the epoch, and those over the validation part after it.

        Raises:
            TrainingError: The loss is not finite.
            UsageError: The checkpoint is of another training.
        """
        if self.config.checkpoint is not None:
            self._data_hashes = [_hash_examples(examples) for examples in (self.train_set, self.validation_set)]
        with self._scope():
            model = self._reset(seed)
            run = self._resume(model, seed) or _Run(self.objective.metric, copy_weights(model), self.config.averaging)
            started = time.perf_counter() - run.seconds
            folder = self.config.tensorboard
            events = None if folder is None else EventWriter(Path(folder) / f"seed-{seed}")
            stopped_by_limit = False
            while True:
                train_results = self._train_epoch(model, run, seed, started)
                current_weights = copy_weights(model)
                model.set_weights(run.average.values)
                validation_results = self._validate(model)
                self._check_loss(validation_results[0], f"on the validation part after epoch {run.epoch + 1}", seed)
                run.finish_epoch(train_results, validation_results, lambda: copy_weights(model))
                if events is not None:
                    events.write(run.epoch, {name: values[-1] for name, values in run.history.items()})
                    events.write(run.epoch, describe_heads(model, self._few_inputs()))
                if run.epoch - 1 - run.best_epoch >= self.config.patience:
                    break
                if run.epoch >= self.config.epochs:
                    stopped_by_limit = True
                    break
                model.set_weights(current_weights)
            model.set_weights(run.best_weights)
        if self.config.checkpoint is not None:
            Path(self.config.checkpoint).unlink(missing_ok=True)
        return {
            "seconds": time.perf_counter() - started,
            "epochs": run.epoch,
            "best_epoch": run.best_epoch + 1,
            "stopped_by_limit": stopped_by_limit,
            "parameters": int(model.count_params()),
            "history": run.history,
        }

    def predict(self, examples: Examples) -> np.ndarray:
        """Return the outputs (examples, ...) of the model from the last `fit`."""
        if self.model is None:
            raise ValueError("`predict` needs a trained model. Call `fit` first.")
        with self._scope():
            return predict(self.model, examples, self.batch_size)

    def export(self) -> keras.Model:
        """Return a copy of the model from the last `fit`, not compiled and without the optimizer."""
        if self.model is None:
            raise ValueError("`export` needs a trained model. Call `fit` first.")
        with dtype_policy(self.config.precision):
            model = self.build()
        model.set_weights(self.model.get_weights())
        return model

    @contextlib.contextmanager
    def _scope(self) -> Iterator[None]:
        """Apply the precision, and the distribution over devices, to what is built and called inside."""
        with dtype_policy(self.config.precision), _distribution(self.config.devices):
            yield

    def _reset(self, seed: int) -> keras.Model:
        """Return the compiled model with the state of a new model."""
        keras.utils.set_random_seed(seed)
        new_model = self.build()
        if self.model is None:
            self.model = new_model
            optimizer = keras.optimizers.Adam(self.config.learning_rate, global_clipnorm=self.config.clip_norm)
            # The last batch is filled with rows of weight 0, which the mean must ignore.
            loss = self.objective.loss()
            if self._mean_weight is not None:
                # A mean with the weights of a batch would lose how they compare with those of other batches.
                loss.reduction = "sum"
            new_model.compile(optimizer, loss, weighted_metrics=[self.objective.metric])
            new_model.optimizer.build(new_model.trainable_variables)
            self._first_optimizer_state = _copy(new_model.optimizer.variables)
        else:
            _assign(self.model.variables, new_model.variables)
            _assign(self.model.optimizer.variables, self._first_optimizer_state)
            self.model.optimizer.learning_rate = self.config.learning_rate
        return self.model

    def _train_epoch(self, model: keras.Model, run: "_Run", seed: int, started: float) -> tuple[float, float]:
        """Train on each example once in each pass of the epoch; return the mean loss and metric."""
        if run.epoch == run.step == 0:
            # On torch, dropout draws from the global generator, which earlier code may have used.
            keras.utils.set_random_seed(seed)
        saved = time.perf_counter()
        passes = range(run.epoch * self.passes, (run.epoch + 1) * self.passes)
        plans = (plan_batches(self.train_set.lengths, self.batch_size, seed, number) for number in passes)
        for planned in itertools.islice(itertools.chain.from_iterable(plans), run.step, None):
            self.on_step()
            inputs, targets, weights = fill_batch(
                self.train_set, planned.indices, planned.padded_length, self.batch_size
            )
            number = self._count_steps(run)
            self._set_learning_rate(model, number)
            if self.change_inputs is not None:
                # Seeded by the step, so that a resumed training changes the same.
                random = np.random.default_rng((seed, number))
                inputs = self.change_inputs(model, inputs, random, number / self.max_steps)
            weight = size = float(weights.sum())
            if self._mean_weight is not None:
                size = float(len(planned.indices))
                weights = weights / np.float32(size * self._mean_weight)
            model.reset_metrics()
            logs = model.train_on_batch(inputs, targets, sample_weight=weights, return_dict=True)
            run.step += 1
            self._check_loss(float(logs["loss"]), f"in epoch {run.epoch + 1}, step {run.step}", seed)
            run.average.update(copy_weights(model))
            run.add(float(logs["loss"]), size, float(logs[self.objective.metric]), weight)
            if self.config.checkpoint is not None and time.perf_counter() - saved >= self.config.checkpoint_seconds:
                run.seconds = time.perf_counter() - started
                self._save_checkpoint(self.config.checkpoint, model, run, seed)
                saved = time.perf_counter()
        return run.means()

    def _count_steps(self, run: "_Run") -> int:
        return run.epoch * self.passes * self._steps_of_pass + run.step

    def _set_learning_rate(self, model: keras.Model, step: int) -> None:
        config = self.config
        if config.schedule == "constant" and not config.warmup:
            return
        model.optimizer.learning_rate = config.learning_rate * _schedule(
            step, self.max_steps, config.schedule, config.warmup
        )

    def _check_loss(self, loss: float, where: str, seed: int) -> None:
        if not math.isfinite(loss):
            raise TrainingError(
                f"The loss must stay finite. It became {loss} {where}, with seed {seed}. The learning rate "
                f"({self.config.learning_rate:g}) is probably too high: lower `learning_rate`."
            )

    def _validate(self, model: keras.Model) -> tuple[float, float]:
        """Return the loss and the metric on the validation part."""
        losses, metrics, total = 0.0, 0.0, 0.0
        examples = self.validation_set
        for planned in plan_batches(examples.lengths, self.batch_size):
            inputs, targets, weights = fill_batch(examples, planned.indices, planned.padded_length, self.batch_size)
            outputs = np.asarray(model.predict_on_batch(inputs), np.float64)
            loss, metric = self.objective.evaluate(np.asarray(targets), outputs)
            losses, metrics = losses + float((loss * weights).sum()), metrics + float((metric * weights).sum())
            total += float(weights.sum())
        return losses / total, metrics / total

    def _few_inputs(self) -> Any:
        """Return the inputs of a few validation examples."""
        examples = self.validation_set
        indices = np.arange(min(len(examples), 8))
        return examples.batch(indices, int(examples.lengths[indices].max()))[0]

    def _describe(self, model: keras.Model, seed: int) -> dict[str, Any]:
        """Return what a checkpoint must agree with."""
        config = dataclasses.asdict(self.config)
        names = (
            "precision",
            "batch_size",
            "learning_rate",
            "schedule",
            "warmup",
            "clip_norm",
            "epoch_steps",
            "averaging",
            "epochs",
        )
        return {
            "seed": seed,
            "examples": [len(self.train_set), len(self.validation_set)],
            "shapes": [list(variable.shape) for variable in model.variables],
            "backend": keras.backend.backend(),
            "data": self._data_hashes,
            **{name: config[name] for name in names},
        }

    def _save_checkpoint(self, path: str | os.PathLike[str], model: keras.Model, run: "_Run", seed: int) -> None:
        groups = {
            "model": _copy(model.variables),
            "optimizer": _copy(model.optimizer.variables),
            "average": run.average.values,
            "best": run.best_weights,
            "generator": [_get_generator_state()],
        }
        arrays = {f"{name}-{index}": value for name, group in groups.items() for index, value in enumerate(group)}
        document = {"training": self._describe(model, seed), "run": run.to_dict()}
        arrays["document"] = np.array(json.dumps(document))
        with _files.atomic_write(path) as temporary, open(temporary, "wb") as stream:
            np.savez(stream, allow_pickle=False, **arrays)

    def _resume(self, model: keras.Model, seed: int) -> "_Run | None":
        """Restore the state of an unfinished training with this seed, if there is one."""
        path = self.config.checkpoint
        if path is None or not os.path.exists(path):
            return None
        try:
            with np.load(path, allow_pickle=False) as file:
                document = json.loads(str(file["document"]))
                groups: dict[str, list[np.ndarray]] = {}
                for key in file.files:
                    if key != "document":
                        groups.setdefault(key.split("-")[0], []).append(file[key])
            expected = json.loads(json.dumps(self._describe(model, seed)))
            if document["training"] != expected:
                changed = [name for name in expected if document["training"].get(name) != expected[name]]
                raise UsageError(
                    f"`checkpoint` must be of this training. {str(path)!r} is of one with another {', '.join(changed)}. "
                    f"Remove it, or name another file."
                )
            run = _Run.from_dict(document["run"], self.objective.metric, groups["best"], self.config.averaging)
        except (OSError, KeyError, ValueError, EOFError) as error:
            if isinstance(error, UsageError):
                raise
            raise UsageError(f"`checkpoint` must be a file that `fit` wrote. {str(path)!r} is not: {error}") from error
        _assign(model.variables, groups["model"])
        _assign(model.optimizer.variables, groups["optimizer"])
        run.average.values = groups.get("average", [])
        _set_generator_state(groups["generator"][0])
        return run


class _Run:
    """The state of one training, besides that of the model."""

    def __init__(self, metric: str, weights: list[np.ndarray], averaging: float) -> None:
        self.epoch = self.step = self.best_epoch = 0
        self.seconds = 0.0
        self.totals = [0.0] * 4  # of this epoch: the loss and what it is a mean of, the metric and the same
        self.history: dict[str, list[float]] = {"loss": [], metric: [], "val_loss": [], f"val_{metric}": []}
        self.best_weights, self.average = weights, RunningAverage(averaging)

    def add(self, loss: float, loss_weight: float, metric: float, metric_weight: float) -> None:
        values = (loss * loss_weight, loss_weight, metric * metric_weight, metric_weight)
        self.totals = [total + value for total, value in zip(self.totals, values, strict=True)]

    def means(self) -> tuple[float, float]:
        loss, loss_weight, metric, metric_weight = self.totals
        return loss / loss_weight, metric / metric_weight

    def finish_epoch(
        self, train: tuple[float, float], validation: tuple[float, float], get_weights: Callable[[], list[np.ndarray]]
    ) -> None:
        """Record an epoch, and keep its weights if it is the best so far."""
        for values, value in zip(self.history.values(), (*train, *validation), strict=True):
            values.append(value)
        if self.epoch == 0 or validation[0] < self.history["val_loss"][self.best_epoch]:
            self.best_epoch, self.best_weights = self.epoch, get_weights()
        self.epoch, self.step, self.totals = self.epoch + 1, 0, [0.0] * 4

    _FIELDS = ("epoch", "step", "best_epoch", "seconds", "totals", "history")

    def to_dict(self) -> dict[str, Any]:
        return {**{name: getattr(self, name) for name in self._FIELDS}, "steps": self.average.steps}

    @classmethod
    def from_dict(cls, document: dict[str, Any], metric: str, weights: list[np.ndarray], averaging: float) -> "_Run":
        run = cls(metric, weights, averaging)
        for name in cls._FIELDS:
            setattr(run, name, document[name])
        run.average.steps = document["steps"]
        return run


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


def predict(model: keras.Model, examples: Examples, batch_size: int) -> np.ndarray:
    """Return the model's outputs (examples, ...) for examples of any lengths, in the order given."""
    outputs: list[np.ndarray] = []
    order: list[np.ndarray] = []
    for planned in plan_batches(examples.lengths, batch_size):
        inputs, _, _ = fill_batch(examples, planned.indices, planned.padded_length, batch_size)
        rows = np.asarray(model.predict_on_batch(inputs))[: len(planned.indices)]
        outputs.append(rows.astype(np.float64))
        order.append(planned.indices)
    if not outputs:
        return np.zeros((0, *model.output_shape[1:]))
    values = np.concatenate(outputs)
    restored = np.empty_like(values)
    restored[np.concatenate(order)] = values
    return restored


def fill_batch(examples: Examples, indices: np.ndarray, length: int, rows: int) -> tuple[Any, Any, np.ndarray]:
    """Return a batch of exactly `rows` examples, because each number of rows is compiled separately.

    The first example is repeated with weight 0: the mean of a row of padding would be undefined.
    """
    missing = max(rows - len(indices), 0)
    inputs, targets, weights = examples.batch(np.concatenate([indices, np.repeat(indices[:1], missing)]), length)
    if missing:
        weights = np.array(weights)
        weights[len(indices) :] = 0
    return inputs, targets, weights


def _hash_examples(examples: Examples) -> str:
    """Return a hash of the lengths of examples, and of the inputs, targets and weights of up to `_MAX_HASHED` of them."""
    lengths = np.asarray(examples.lengths)
    total = hashlib.blake2b(lengths.tobytes(), digest_size=16)
    indices = np.unique(np.linspace(0, len(examples) - 1, min(len(examples), _MAX_HASHED)).astype(int))
    # Each is padded to a length close to its own.
    indices = indices[np.argsort(lengths[indices], kind="stable")]
    for chunk in np.array_split(indices, -(-len(indices) // 64)):
        for array in keras.tree.flatten(examples.batch(chunk, int(lengths[chunk].max()))):
            total.update(np.ascontiguousarray(array).tobytes())
    return total.hexdigest()


def _schedule(step: int, max_steps: int, schedule: str, warmup: float) -> float:
    """Return the factor of the learning rate at a step, counted from 0."""
    warmup_steps = round(warmup * max_steps)
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    if schedule == "constant":
        return 1.0
    progress = (step - warmup_steps) / max(max_steps - warmup_steps, 1)
    return 0.5 * (1 + math.cos(math.pi * progress))


def _copy(variables: Any) -> list[np.ndarray]:
    return [np.array(keras.ops.convert_to_numpy(variable)) for variable in variables]


def _assign(variables: Any, values: Any) -> None:
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)


def _get_generator_state() -> np.ndarray:
    """Return the state of the global generator that dropout draws from on torch; elsewhere, models hold their own."""
    if keras.backend.backend() != "torch":
        return np.zeros(0, np.uint8)
    import torch

    return torch.get_rng_state().numpy()


def _set_generator_state(state: np.ndarray) -> None:
    if keras.backend.backend() == "torch":
        import torch

        torch.set_rng_state(torch.from_numpy(np.array(state)))


@contextlib.contextmanager
def dtype_policy(name: str | None) -> Iterator[None]:
    """Use a dtype policy of Keras's for what is built inside; the current one for None."""
    before = keras.config.dtype_policy()
    if name is not None:
        keras.config.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


@contextlib.contextmanager
def _distribution(devices: int | str | None) -> Iterator[None]:
    if devices is None:
        yield
        return
    before = keras.distribution.distribution()
    keras.distribution.set_distribution(keras.distribution.DataParallel(devices=_list_devices(devices)))
    try:
        yield
    finally:
        keras.distribution.set_distribution(before)


def _list_devices(devices: int | str) -> list[str]:
    """Return the names of the devices that share a batch."""
    if keras.backend.backend() != "jax":
        raise ValueError(
            f"`devices` needs the JAX backend. Received: devices={devices!r} on {keras.backend.backend()}. Set KERAS_BACKEND=jax."
        )
    names = keras.distribution.list_devices()
    count = len(names) if devices == "all" else int(devices)
    if not 1 <= count <= len(names):
        raise ValueError(f"`devices` must be from 1 to {len(names)}, or 'all'. Received: devices={devices!r}.")
    return names[:count]
