"""Base classes of the estimators: training, prediction and attention, for each kind of inputs and of targets."""

import dataclasses
import functools
import os
import warnings
from collections.abc import Callable
from typing import Any, Self

import keras
import numpy as np

from limelight import evaluate, inspection
from limelight._optional import import_optional
from limelight._progress import Progress
from limelight.core.validation import check_positive_int
from limelight.data import Tokenizer
from limelight.data.vectors import load_vectors
from limelight.exceptions import AttentionError, DataError
from limelight.maps import AttentionMaps
from limelight.models import files, frozen
from limelight.models.builders import ENCODERS
from limelight.models.inputs import (
    DocumentInputs,
    Inputs,
    SeriesInputs,
    TextInputs,
    as_series,
    as_texts,
    collect_pairs,
    take,
    warn_of_cut,
)
from limelight.models.objectives import Classification, Regression
from limelight.models.pretrained import PretrainedTokenizer, load_encoder, read_encoder_config
from limelight.models.targets import Classes, Numbers, to_array
from limelight.models.training import Trainer, TrainingConfig, dtype_policy, predict

import_optional("sklearn")
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin  # noqa: E402
from sklearn.model_selection import train_test_split  # noqa: E402
from sklearn.utils import check_random_state  # noqa: E402
from sklearn.utils.class_weight import compute_sample_weight  # noqa: E402
from sklearn.utils.validation import check_is_fitted, column_or_1d  # noqa: E402

# With fewer examples than this, the examples that validate would be too few to tell one epoch from another.
_MIN_VALIDATED = 20
_SETTINGS = tuple(field.name for field in dataclasses.fields(TrainingConfig))


class Estimator(BaseEstimator):
    """Base class of the estimators: a Keras model, trained on encoded inputs.

    A subclass has arguments of its own, and says how its inputs and targets are encoded and its network is built.
    """

    pooling: Any
    validation: float
    epochs: int
    batch_size: int
    learning_rate: float
    training: dict[str, Any] | None
    random_state: Any
    verbose: bool
    _objective: Any
    _inputs_class: type[Inputs]

    def _check_inputs(self, X: Any) -> list[Any]:
        """Return raw inputs as a list, or raise."""
        raise NotImplementedError

    def _fit_inputs(self, X: list[Any]) -> Any:
        """Learn the encoding of the inputs."""
        raise NotImplementedError

    def _fit_target(self, y: Any) -> Any:
        """Learn the encoding of the targets."""
        raise NotImplementedError

    def _build(self, inputs: Any, target: Any) -> keras.Model:
        """Return a new network."""
        raise NotImplementedError

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None, *, validation_data: Any = None) -> Self:
        """Train on inputs and their targets.

        Args:
            X: The inputs, as the class describes them. Without `y`, an iterable of pairs of an input and its target: a generator,
                or a dataset of `tf.data`, `grain` or torch that is not batched.
            y: The targets (n,), or (n, K) for several numbers.
            sample_weight: The weight of each example (n,).
            validation_data: Inputs and targets for early stopping, and weights if they have some: (X, y) or
                (X, y, sample_weight). Weights of classes are those of the training. Without it, `validation` of the examples are
                held out. With fewer than 20 examples, or if one side has no weight, training is stopped by its own loss.

        Returns:
            The estimator.

        Raises:
            ValueError: The inputs or targets cannot be used.
            TrainingError: The loss is not finite.
        """
        if y is None and not _is_data(X):
            X, y = collect_pairs(X)
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        X = self._check_inputs(X)
        target = self._fit_target(y)
        targets = target.encode(y)
        if len(targets) != len(X):
            raise ValueError(
                f"`y` must hold one target for each input. Received: {len(X)} inputs and {len(targets)} targets."
            )
        weights = self._make_weights(y, sample_weight, len(X))
        train, held_out = self._split(targets, seed) if validation_data is None else (np.arange(len(X)), None)
        if held_out is not None and not (weights[train].any() and weights[held_out].any()):
            # Examples of weight 0 neither train nor validate.
            train, held_out = np.arange(len(X)), None
        inputs = self._fit_inputs(take(X, train))

        def encode(indices: np.ndarray) -> Any:
            return inputs.encode(take(X, indices), targets[indices], weights[indices])

        training = encode(train)
        if validation_data is not None:
            validation = self._encode_validation_data(validation_data, inputs, target, y) or training
        else:
            validation = training if held_out is None else encode(held_out)
        model, history = self._train(functools.partial(self._build, inputs, target), training, validation, seed)
        return self.restore(inputs, target, model, history)

    def attention(self, X: Any) -> AttentionMaps:
        """Return the attention of the model on inputs, with the words of texts as tokens.

        Args:
            X: The inputs. They are one batch, padded to the longest.

        Raises:
            AttentionError: The model has no attention.
        """
        check_is_fitted(self)
        X = self._check_inputs(X)
        warn_of_cut(self._input_limit, self.inputs_.count_cut(X), len(X), stacklevel=2)
        examples = self.inputs_.encode(X)
        longest = int(examples.lengths.max())
        inputs, _, _ = examples.batch(np.arange(len(examples)), longest)
        with warnings.catch_warnings():
            # That nothing was captured is an error below.
            warnings.simplefilter("ignore", inspection.CaptureWarning)
            maps = inspection.capture(self.model_, inputs, tokens=self.inputs_.tokens(X))
        if not maps:
            raise AttentionError(
                f"The model must have attention. Received: encoder={getattr(self, 'encoder', None)!r}, "
                f"pooling={self.pooling!r}. Set pooling='attention' and fit again."
            )
        return maps

    def count_cut(self, X: Any) -> int:
        """Count the inputs of which the model does not read the end, because they are longer than what is read of one."""
        check_is_fitted(self)
        return self.inputs_.count_cut(self._check_inputs(X))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the estimator to one .keras file, atomically; `limelight.models.load` reads it on any backend.

        `keras.models.load_model` reads the same file as the Keras model alone.

        Raises:
            ValueError: The name does not end with ".keras".
        """
        check_is_fitted(self)
        files.save(self, path)

    def restore(self, inputs: Any, target: Any, model: keras.Model, history: dict[str, Any]) -> Self:
        """Make this estimator a fitted one, from the parts of one: `inputs_`, `target_`, `model_` and `history_`."""
        self.inputs_, self.target_, self.model_, self.history_ = inputs, target, model, history
        return self

    def _train(
        self, build: Callable[[], keras.Model], training: Any, validation: Any, seed: int, change_inputs: Any = None
    ) -> tuple[keras.Model, dict[str, Any]]:
        """Return a new network that is trained, and the summary of its training; `change_inputs` as in `Trainer`."""
        config = self._training_config()
        with Progress(quiet=not self.verbose) as bar:
            trainer = Trainer(build, training, validation, self._objective, config, bar.step, change_inputs)
            bar.set_total(trainer.max_steps)
            bar.start_run(type(self).__name__, trainer.max_steps)
            history = trainer.fit(seed)
        return trainer.export(), history

    @property
    def _input_limit(self) -> str:
        """Return how much is read of an input, such as "512 words"."""
        return self.inputs_.limit

    def _predict_outputs(self, X: Any) -> np.ndarray:
        check_is_fitted(self)
        X = self._check_inputs(X)
        warn_of_cut(self._input_limit, self.inputs_.count_cut(X), len(X), stacklevel=3)
        examples = self.inputs_.encode(X)
        rows = 1 << max(min(self.batch_size, len(examples)) - 1, 0).bit_length()
        return predict(self.model_, examples, rows)

    def _training_config(self) -> TrainingConfig:
        common = {"epochs": self.epochs, "batch_size": self.batch_size, "learning_rate": self.learning_rate}
        further = dict(self.training or {})
        if repeated := sorted(common.keys() & further):
            raise ValueError(
                f"`training` must not repeat an argument of the estimator. Received: {repeated[0]!r} in both."
            )
        settings = [name for name in _SETTINGS if name not in common]
        if unknown := sorted(further.keys() - set(settings)):
            raise ValueError(
                f"`training` must hold settings of `limelight.models.TrainingConfig`: {', '.join(settings)}. Received: "
                f"{unknown[0]!r}."
            )
        return TrainingConfig(**{"epoch_steps": 50, **common, **further})

    def _split(self, targets: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray | None]:
        """Return the examples to train on and those that validate."""
        count = len(targets)
        if count < _MIN_VALIDATED or not self.validation:
            return np.arange(count), None
        size = max(1, round(self.validation * count))
        classes = np.bincount(targets) if targets.dtype.kind in "iu" else np.zeros(0)
        # Each class must have an example on both sides.
        stratify = targets if len(classes) and classes.min() > 1 and len(classes) <= min(size, count - size) else None
        train, held_out = train_test_split(np.arange(count), test_size=size, random_state=seed, stratify=stratify)
        return np.sort(train), np.sort(held_out)

    def _encode_validation_data(self, data: Any, inputs: Any, target: Any, train_y: Any) -> Any:
        """Return the examples for validation; None if they have no weight."""
        if not isinstance(data, tuple | list) or len(data) not in (2, 3):
            size = f" of {len(data)}" if isinstance(data, tuple | list) else ""
            raise ValueError(
                "`validation_data` must be a tuple (X, y) or (X, y, sample_weight). Received: "
                f"{type(data).__name__}{size}."
            )
        X, y = self._check_inputs(data[0]), data[1]
        targets = target.encode(y)
        if len(targets) != len(X):
            raise ValueError(
                f"`validation_data` must hold one target for each input. Received: {len(X)} inputs and {len(targets)} targets."
            )
        weights = self._make_weights(y, data[2] if len(data) == 3 else None, len(X), train_y)
        return inputs.encode(X, targets, weights) if weights.any() else None

    def _make_weights(self, y: Any, sample_weight: Any, count: int, train_y: Any = None) -> np.ndarray:
        """Return the weight of each example; those of classes are of `train_y`, or of `y` itself."""
        weights = np.ones(count) if sample_weight is None else column_or_1d(np.asarray(sample_weight, float))
        if len(weights) != count:
            raise ValueError(
                f"`sample_weight` must hold one weight for each input. Received: {len(weights)} for {count}."
            )
        if not weights.any():
            raise ValueError("`sample_weight` must hold a weight above zero. Received: only zeros.")
        class_weight = getattr(self, "class_weight", None)
        if class_weight is None:
            return weights
        if train_y is None:
            return weights * compute_sample_weight(class_weight, to_array(y))
        labels = to_array(train_y)
        of_classes = dict(zip(labels.tolist(), compute_sample_weight(class_weight, labels).tolist(), strict=True))
        return weights * [of_classes[label] for label in to_array(y).tolist()]


class TextEstimator(Estimator):
    """Estimators whose inputs are texts."""

    encoder: Any
    units: int
    embedding_dim: int
    dropout: float
    word_dropout: float
    vocabulary: int
    max_length: int
    vectors: Any
    fine_tune: bool
    _inputs_class = TextInputs

    def _check_inputs(self, X: Any) -> list[str]:
        return as_texts(X)

    @property
    def _has_pretrained_encoder(self) -> bool:
        """True if `encoder` is a folder: a path, or a string that is no name of an encoder."""
        encoder = self.encoder
        if not isinstance(encoder, str):
            return isinstance(encoder, os.PathLike)
        return encoder not in ENCODERS and (os.path.isdir(encoder) or os.sep in encoder)

    def _fit_inputs(self, X: list[str]) -> TextInputs:
        check_positive_int("max_length", self.max_length)
        check_positive_int("vocabulary", self.vocabulary)
        if self._has_pretrained_encoder:
            if self.vectors is not None:
                raise ValueError(
                    "A pretrained encoder has embeddings of its own. Received: "
                    f"vectors={os.fspath(self.vectors)!r}. Leave it out."
                )
            self._embeddings = self.vectors_found_ = None
            config, tokenizer = read_encoder_config(self.encoder), PretrainedTokenizer.from_folder(self.encoder)
            if tokenizer.size > config["vocab_size"]:
                raise DataError(
                    f"The tokenizer of {os.fspath(self.encoder)!r} must have at most the {config['vocab_size']:,} ids of its "
                    f"config.json. Received: {tokenizer.size:,}."
                )
            return TextInputs(tokenizer, min(self.max_length, config["max_position_embeddings"]))
        tokenizer = Tokenizer.train(X, size=max(3, self.vocabulary))
        self._embeddings, self.vectors_found_ = read_embeddings(self.vectors, tokenizer)
        return TextInputs(tokenizer, self.max_length)

    def _train(
        self, build: Callable[[], keras.Model], training: Any, validation: Any, seed: int, change_inputs: Any = None
    ) -> tuple[keras.Model, dict[str, Any]]:
        """Train; a pretrained encoder that is frozen encodes each text once, and what follows it is trained on its states."""
        train = functools.partial(super()._train, change_inputs=change_inputs)
        if self.fine_tune or not self._has_pretrained_encoder:
            return train(build, training, validation, seed)
        with dtype_policy(self._training_config().precision):
            model = build()
        parts = [training] if validation is training else [training, validation]
        if frozen.count_bytes(model, *parts) > frozen.MAX_BYTES:
            return train(build, training, validation, seed)
        with Progress(quiet=not self.verbose) as bar:
            steps = frozen.count_steps(*parts)
            bar.set_total(steps)
            bar.start_run("encoder", steps)
            encoded = [frozen.encode(model, part, bar.step) for part in parts]
        head, history = train(lambda: frozen.cut_head(build()), encoded[0], encoded[-1], seed)
        frozen.cut_head(model).set_weights(head.get_weights())
        # Keras cannot save a model whose layers are called in another one.
        with dtype_policy(self._training_config().precision):
            whole = build()
        whole.set_weights(model.get_weights())
        history["parameters"] = int(whole.count_params())
        return whole, history

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.string, tags.input_tags.two_d_array = True, False
        return tags

    def _build_with(self, build: Callable[..., keras.Model], inputs: TextInputs, num_outputs: int) -> keras.Model:
        pretrained = self._has_pretrained_encoder
        return build(
            inputs.tokenizer.size,
            num_outputs,
            encoder=load_encoder(self.encoder, trainable=self.fine_tune) if pretrained else _copy(self.encoder),
            pooling=_copy(self.pooling),
            units=self.units,
            embedding_dim=self.embedding_dim,
            embeddings=self._embeddings,
            dropout=self.dropout,
            word_dropout=self.word_dropout,
        )


class SeriesEstimator(Estimator):
    """Estimators whose inputs are time series."""

    encoder: Any
    units: int
    dropout: float
    max_length: int
    _inputs_class = SeriesInputs

    def _check_inputs(self, X: Any) -> list[np.ndarray]:
        return as_series(X)

    def _fit_inputs(self, X: list[np.ndarray]) -> SeriesInputs:
        check_positive_int("max_length", self.max_length)
        steps = np.concatenate([steps[: self.max_length] for steps in X]).astype(np.float64)
        self._mean, self._variance = steps.mean(0), steps.var(0)
        return SeriesInputs(steps.shape[1], self.max_length)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        return tags

    @property
    def n_channels_in_(self) -> int:
        """The number of channels of the training series."""
        check_is_fitted(self, "inputs_")
        return self.inputs_.num_channels

    def _build_with(self, build: Callable[..., keras.Model], inputs: SeriesInputs, num_outputs: int) -> keras.Model:
        return build(
            inputs.num_channels,
            num_outputs,
            encoder=_copy(self.encoder),
            pooling=_copy(self.pooling),
            units=self.units,
            dropout=self.dropout,
            mean=self._mean,
            variance=self._variance,
        )


class DocumentEstimator(Estimator):
    """Estimators whose inputs are texts of several sentences."""

    vocabulary: int
    max_sentences: int
    max_words: int
    vectors: Any
    _inputs_class = DocumentInputs

    def _check_inputs(self, X: Any) -> list[str]:
        return as_texts(X)

    def _fit_inputs(self, X: list[str]) -> DocumentInputs:
        for name in ("vocabulary", "max_sentences", "max_words"):
            check_positive_int(name, getattr(self, name))
        inputs = DocumentInputs.fit(X, self.vocabulary, self.max_sentences, self.max_words)
        self._embeddings, self.vectors_found_ = read_embeddings(self.vectors, inputs.tokenizer)
        return inputs

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.string, tags.input_tags.two_d_array = True, False
        return tags


class Classifier(ClassifierMixin):
    """Estimators of classes."""

    target_: Classes
    _predict_outputs: Callable[[Any], np.ndarray]
    _objective = Classification()
    _target_class = Classes

    def _fit_target(self, y: Any) -> Classes:
        return Classes.fit(y)

    @property
    def classes_(self) -> np.ndarray:
        """The class labels, sorted (K,)."""
        check_is_fitted(self, "target_")
        return self.target_.values

    def predict_proba(self, X: Any) -> np.ndarray:
        """Return the probability of each class (n, K), in the order of `classes_`."""
        return self._predict_outputs(X)

    def predict(self, X: Any) -> np.ndarray:
        """Return the most probable class of each input (n,)."""
        return self.classes_[self._predict_outputs(X).argmax(1)]

    def evaluate(self, X: Any, y: Any) -> evaluate.ClassificationResult:
        """Return the metrics on inputs and their classes, each with its interval over examples."""
        names = [str(value) for value in self.classes_]
        return evaluate.classification(self.target_.encode(y), self._predict_outputs(X), names)


class Regressor(RegressorMixin):
    """Estimators of numbers."""

    target_: Numbers
    _predict_outputs: Callable[[Any], np.ndarray]
    _objective = Regression()
    _target_class = Numbers

    def _fit_target(self, y: Any) -> Numbers:
        return Numbers.fit(y)

    def predict(self, X: Any) -> np.ndarray:
        """Return a number for each input (n,), or (n, K) if the targets had K."""
        check_is_fitted(self, "target_")
        return self.target_.decode(self._predict_outputs(X))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags

    def evaluate(self, X: Any, y: Any) -> evaluate.RegressionResult:
        """Return the metrics on inputs and their targets, each with its interval over examples."""
        return evaluate.regression(to_array(y).astype(float), self.predict(X))


def _copy(part: Any) -> Any:
    """Return a new layer like a given one, so that two trainings do not share its weights; a name or None as it is."""
    return type(part).from_config(part.get_config()) if isinstance(part, keras.Layer) else part


def _is_data(X: Any) -> bool:
    """Return True for inputs without their targets, and False for an iterable of pairs of both."""
    has_pairs = isinstance(X, list | tuple) and len(X) > 0 and isinstance(X[0], tuple) and len(X[0]) == 2
    return hasattr(X, "dtype") or hasattr(X, "columns") or (isinstance(X, list | tuple) and not has_pairs)


def read_embeddings(
    path: str | os.PathLike[str] | None, tokenizer: Tokenizer
) -> tuple[np.ndarray | None, float | None]:
    """Return initial embeddings (vocabulary, D) from a file of word vectors, and the share of the words that it holds.

    The other words have random vectors of the same mean square.
    """
    if path is None:
        return None, None
    vectors, found = load_vectors(path, tokenizer.words)
    if not found.any():
        raise DataError(
            f"{str(path)!r} must hold vectors of words of the texts. It holds none of {len(found):,} words."
        )
    scale = float(np.sqrt((vectors[found] ** 2).mean()))
    vectors[~found] = np.random.default_rng(0).normal(scale=scale, size=(int((~found).sum()), vectors.shape[1]))
    # Padding and the unknown word come first.
    return np.concatenate([np.zeros((2, vectors.shape[1]), np.float32), vectors]), float(found.mean())
