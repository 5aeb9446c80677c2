"""Trainings depend on the seed alone, measure every example once, keep the best epoch, and stop when the loss is not finite."""

import dataclasses
import functools

import keras
import numpy as np
import pytest

from contracts.representative import full
from limelight.exceptions import TrainingError, UsageError
from limelight.models.examples import Sequences
from limelight.models.objectives import Classification, Regression
from limelight.models.training import RunningAverage, Trainer, TrainingConfig, fill_batch, predict


class Counter:
    """Counts its calls."""

    def __init__(self):
        self.steps = 0

    def __call__(self):
        self.steps += 1


def bag_of_words(dropout):
    """Build a classifier that compiles quickly; dropout makes its random state matter."""
    ids = keras.Input((None,), dtype="int32")
    vectors = keras.layers.Embedding(11, 3, mask_zero=True)(ids)
    vector = keras.layers.GlobalAveragePooling1D()(keras.layers.Dropout(dropout)(vectors))
    return keras.Model(ids, keras.layers.Dense(2, "softmax")(vector))


def make_subset(count, seed):
    """Return texts of words 1 to 10, of class 1 if their mean is above 5.5."""
    random = np.random.default_rng(seed)
    sequences = [random.integers(1, 11, size=random.integers(1, 9)).astype(np.int32) for _ in range(count)]
    return Sequences(sequences, np.array([int(ids.mean() > 5.5) for ids in sequences]))


CONFIG = TrainingConfig(epochs=3, patience=3, batch_size=8, learning_rate=0.05, averaging=0.5)


def make_trainer(dropout=0.4, **changes):
    build = functools.partial(bag_of_words, dropout)
    train, validation = make_subset(29, seed=1), make_subset(13, seed=2)
    return Trainer(build, train, validation, Classification(), dataclasses.replace(CONFIG, **changes), Counter())


@pytest.fixture(scope="module")
def shared():
    """One trainer, compiled once: the first test shows that a training depends on its seed alone."""
    return make_trainer()


@pytest.fixture(scope="module")
def validation():
    return make_subset(13, seed=2)


@pytest.fixture
def trainer(shared, validation):
    """The shared trainer with its original attributes, except for those given."""

    def configure(on_step=None, validation_set=validation, **changes):
        shared.on_step, shared.validation_set = on_step or Counter(), validation_set
        shared.config = dataclasses.replace(CONFIG, **changes)
        return shared

    return configure


def test_a_training_depends_on_its_seed_alone(trainer):
    first, second = trainer(), make_trainer()
    first.fit(1)
    after_another, alone = first.fit(2), second.fit(2)
    for name, values in alone["history"].items():
        assert after_another["history"][name] == pytest.approx(values, rel=1e-5)
    test = make_subset(17, seed=3)
    np.testing.assert_allclose(first.predict(test), second.predict(test), rtol=1e-5)
    second.fit(1)
    assert np.abs(first.predict(test) - second.predict(test)).max() > 1e-4


def test_the_summary_of_a_run(trainer):
    counter = Counter()
    configured = trainer(on_step=counter)
    summary = configured.fit(1)
    assert counter.steps == configured.max_steps == 3 * 4  # 29 examples in batches of 8
    assert summary["epochs"] == 3
    assert summary["parameters"] == 11 * 3 + 3 * 2 + 2
    assert summary["best_epoch"] == 1 + int(np.argmin(summary["history"]["val_loss"]))
    assert set(summary["history"]) == {"loss", "accuracy", "val_loss", "val_accuracy"}
    assert summary["history"]["loss"][-1] < summary["history"]["loss"][0]


def test_the_best_epoch_is_kept(trainer, validation):
    # The validation labels are wrong: each epoch is worse than the one before.
    configured = trainer(epochs=4, patience=4, validation_set=Sequences(validation.sequences, 1 - validation.targets))
    summary = configured.fit(5)
    losses = summary["history"]["val_loss"]
    assert losses == sorted(losses)
    assert losses[0] < losses[-1]
    assert summary["best_epoch"] == 1
    chosen = configured.predict(validation)[np.arange(13), 1 - validation.targets]
    assert -np.log(chosen).mean() == pytest.approx(losses[0], rel=1e-5)


@pytest.mark.full
def test_patience_ends_a_training(trainer, validation):
    configured = trainer(epochs=9, patience=2, validation_set=Sequences(validation.sequences, 1 - validation.targets))
    summary = configured.fit(5)
    assert summary["epochs"] == 3
    assert not summary["stopped_by_limit"]
    # The best epoch was not the last one, but two more were to be tried.
    configured.config = dataclasses.replace(configured.config, epochs=2)
    summary = configured.fit(5)
    assert (summary["best_epoch"], summary["stopped_by_limit"]) == (1, True)


@pytest.mark.full
@pytest.mark.full
def test_an_equal_validation_loss_is_no_better():
    # Without a learning rate all epochs are equal: the first is kept, and two more end the training.
    run = make_trainer(0.0, epochs=9, patience=2, learning_rate=0.0).fit(1)
    assert (run["epochs"], run["best_epoch"], run["stopped_by_limit"]) == (3, 1, False)


def test_an_epoch_has_at_least_the_given_number_of_steps():
    def train(epochs, epoch_steps):
        trainer = make_trainer(0.0, epochs=epochs, epoch_steps=epoch_steps, patience=9, averaging=0.0)
        summary = trainer.fit(1)
        assert trainer.on_step.steps == trainer.max_steps
        return trainer.passes, trainer.on_step.steps, summary

    # A pass has 4 steps, so 9 steps take 3 passes; the passes are those of single epochs.
    passes, steps, long = train(1, 9)
    _, _, short = train(3, 1)
    assert (passes, steps) == (3, 12)
    assert len(long["history"]["loss"]) == 1
    assert long["history"]["loss"][0] == pytest.approx(np.mean(short["history"]["loss"]), rel=1e-5)
    assert long["history"]["val_loss"][0] == pytest.approx(short["history"]["val_loss"][2], rel=1e-5)
    assert long["stopped_by_limit"]
    assert short["stopped_by_limit"]


def test_the_training_loss_counts_every_example_once():
    # Without dropout and with a tiny learning rate, the loss can be measured after training.
    configured = make_trainer(dropout=0.0, epochs=1, learning_rate=1e-9)
    history = configured.fit(1)["history"]
    train_set = configured.train_set
    probabilities = configured.predict(train_set)
    assert history["loss"] == pytest.approx([-np.log(probabilities[np.arange(29), train_set.targets]).mean()], rel=1e-5)
    assert history["accuracy"] == pytest.approx([(probabilities.argmax(1) == train_set.targets).mean()])


def test_predictions_keep_the_order_of_the_examples(trainer):
    configured = trainer(epochs=1)
    configured.fit(1)
    examples = make_subset(19, seed=3)
    together = configured.predict(examples)
    assert together.shape == (19, 2)
    for index in (0, 7, 18):
        alone = keras.ops.convert_to_numpy(configured.model(examples.sequences[index][None], training=False))
        np.testing.assert_allclose(together[index], alone[0], rtol=1e-5)


@pytest.mark.full
def test_a_saved_model_predicts_the_same(trainer, tmp_path):
    configured = trainer(epochs=1)
    configured.fit(1)
    configured.export().save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert not loaded.compiled
    examples = make_subset(5, seed=3)
    np.testing.assert_array_equal(predict(loaded, examples, 8), configured.predict(examples))


def test_a_loss_that_is_not_finite_ends_the_training(trainer):
    with pytest.raises(
        TrainingError,
        match=r"The loss must stay finite\. It became nan in epoch 1, step \d, with seed 1\. "
        r"The learning rate \(1e\+38\) is probably too high: lower `learning_rate`\.",
    ):
        trainer(learning_rate=1e38).fit(1)


@pytest.mark.full
def test_on_step_can_end_a_training(trainer):
    def interrupt():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trainer(on_step=interrupt).fit(1)


@pytest.mark.full
@pytest.mark.parametrize("kind", ["ids", "series"])
def test_a_batch_is_filled_with_a_real_row_of_no_weight(kind):
    sequences = [
        np.full((length, 2), length, "float32") if kind == "series" else np.full(length, length) for length in (3, 5)
    ]
    examples = Sequences(sequences, np.array([4, 1]), weights=[2.0, 3.0])
    indices = np.array([1, 0])
    inputs, targets, weights = fill_batch(examples, indices, 16, 4)
    np.testing.assert_array_equal(targets, [1, 4, 1, 1])
    np.testing.assert_array_equal(weights, [3, 2, 0, 0])
    lengths = [5, 3, 5, 5]
    values = inputs if kind == "ids" else inputs["steps"][..., 0]
    np.testing.assert_array_equal(values, [[length] * length + [0] * (16 - length) for length in lengths])
    if kind == "series":
        np.testing.assert_array_equal(inputs["mask"].sum(1), lengths)
    np.testing.assert_array_equal(fill_batch(examples, indices, 16, 2)[2], [3, 2])


class Stop(Exception):
    """Ends a training, as a crash would."""


@pytest.mark.parametrize("stop_at", [3, full(6)])
def test_a_training_goes_on_from_its_checkpoint_to_the_same_result(stop_at, tmp_path):
    path = tmp_path / "state.npz"
    changes = {"schedule": "cosine", "warmup": 0.1, "checkpoint": path, "checkpoint_seconds": 0.0}
    whole = make_trainer(**{**changes, "checkpoint": None})
    expected = whole.fit(1)["history"]

    interrupted, remaining = make_trainer(**changes), Counter()

    def stop():
        if stop.calls == stop_at:
            raise Stop
        stop.calls += 1

    stop.calls = 0
    interrupted.on_step = stop
    with pytest.raises(Stop):
        interrupted.fit(1)
    resumed = make_trainer(**changes)
    resumed.on_step = remaining
    history = resumed.fit(1)["history"]
    assert remaining.steps == 12 - stop_at
    for name, values in expected.items():
        assert history[name] == pytest.approx(values, rel=1e-6)
    test = make_subset(17, seed=3)
    np.testing.assert_allclose(resumed.predict(test), whole.predict(test), rtol=1e-5)
    assert not path.exists()


@pytest.mark.full
def test_a_checkpoint_of_another_training_is_refused(tmp_path):
    path = tmp_path / "state.npz"
    first = make_trainer(checkpoint=path, checkpoint_seconds=0.0)

    def stop():
        if path.exists():
            raise Stop

    first.on_step = stop
    with pytest.raises(Stop):
        first.fit(1)
    with pytest.raises(UsageError, match=r"of this training. .* is of one with another seed\. Remove it"):
        make_trainer(checkpoint=path).fit(2)
    with pytest.raises(UsageError, match=r"another learning_rate"):
        make_trainer(checkpoint=path, learning_rate=0.01).fit(1)
    relabelled = make_trainer(checkpoint=path)
    relabelled.train_set.targets[7] ^= 1
    with pytest.raises(UsageError, match=r"another data\."):
        relabelled.fit(1)
    assert path.exists()
    path.write_bytes(b"nonsense")
    with pytest.raises(UsageError, match=r"must be a file that `fit` wrote"):
        make_trainer(checkpoint=path).fit(1)


def test_one_changed_example_of_a_thousand_is_found(tmp_path):
    ids = np.random.default_rng(3).integers(1, 9, (1_000, 4)).astype(np.int32)
    texts, labels = list(ids), (ids[:, 0] > 4).astype(float)

    def make(texts, labels, on_step=lambda: None):
        config = dataclasses.replace(CONFIG, checkpoint=tmp_path / "state.npz", checkpoint_seconds=0.0, epochs=1)
        build = functools.partial(bag_of_words, 0.0)
        return Trainer(build, Sequences(texts, labels), make_subset(13, seed=2), Classification(), config, on_step)

    def stop():
        if (tmp_path / "state.npz").exists():
            raise Stop

    with pytest.raises(Stop):
        make(texts, labels, stop).fit(1)
    relabelled, rewritten = labels.copy(), [*texts[:500], 9 - texts[500], *texts[501:]]
    relabelled[7] = 1 - relabelled[7]
    for changed in ((texts, relabelled), (rewritten, labels)):
        with pytest.raises(UsageError, match=r"another data\."):
            make(*changed).fit(1)
    make(texts, labels).fit(1)


@pytest.mark.full
def test_the_learning_rate_rises_and_falls():
    trainer = make_trainer(epochs=5, schedule="cosine", warmup=0.2, patience=9)
    rates = []
    trainer.on_step = lambda: rates.append(float(trainer.model.optimizer.learning_rate))
    trainer.fit(1)
    rates.append(float(trainer.model.optimizer.learning_rate))
    # `on_step` sees the rate of the step before.
    expected = [0.05 * step / 4 for step in range(1, 5)]
    expected += [0.05 * 0.5 * (1 + np.cos(np.pi * step / 16)) for step in range(16)]
    np.testing.assert_allclose(rates[1:], expected, rtol=1e-5)


@pytest.mark.full
def test_weights_of_examples_weigh_the_losses(validation):
    # Weight 0 takes an example out: the history is that of the other examples alone.
    trainer = make_trainer(0.0, epochs=1, averaging=0.0)
    weights = (np.arange(13) % 3 > 0).astype("float32")
    trainer.validation_set = Sequences(validation.sequences, validation.targets, weights)
    weighted = trainer.fit(1)["history"]["val_loss"][0]
    kept = [index for index in range(13) if weights[index]]
    probabilities = trainer.predict(validation)
    chosen = probabilities[kept, validation.targets[kept]]
    assert weighted == pytest.approx(-np.log(chosen).mean(), rel=1e-5)


@pytest.mark.full
@pytest.mark.parametrize("batch_size", [1, 4, 40])
def test_weights_compare_examples_of_different_batches(batch_size):
    # All inputs are equal, so that the best prediction is the share of each class in the weights: 4 * 9 of 36 + 4 * 9.
    targets = (np.arange(40) % 10 == 3).astype(int)
    examples = Sequences([np.array([2], np.int32)] * 40, targets, np.where(targets, 9.0, 1.0))
    config = TrainingConfig(epochs=2, epoch_steps=200, batch_size=batch_size, learning_rate=0.01, averaging=0.99)
    trainer = Trainer(functools.partial(bag_of_words, 0.0), examples, examples, Classification(), config)
    history = trainer.fit(1)["history"]
    np.testing.assert_allclose(trainer.predict(examples)[0], [0.5, 0.5], atol=0.05)
    assert history["loss"][1] == pytest.approx(np.log(2), abs=0.03)
    assert history["val_loss"][1] == pytest.approx(np.log(2), abs=0.01)


@pytest.mark.full
def test_regression_loss_against_numpy():
    def build():
        ids = keras.Input((None,), dtype="int32")
        vectors = keras.layers.Embedding(11, 3, mask_zero=True)(ids)
        return keras.Model(ids, keras.layers.Dense(2)(keras.layers.GlobalAveragePooling1D()(vectors)))

    def make(count, seed):
        sequences = make_subset(count, seed).sequences
        return Sequences(sequences, np.array([[ids.mean(), ids.max()] for ids in sequences], "float32"))

    config = dataclasses.replace(CONFIG, epochs=1, averaging=0.0)
    validation = make(13, 2)
    trainer = Trainer(build, make(29, 1), validation, Regression(), config)
    history = trainer.fit(1)["history"]
    errors = trainer.predict(validation) - validation.targets
    assert history["val_loss"] == pytest.approx([(errors**2).mean()], rel=1e-5)
    assert history["val_mae"] == pytest.approx([np.abs(errors).mean()], rel=1e-5)


@pytest.mark.full
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schedule": "linear"}, r'`schedule` must be "constant" or "cosine"\. Received: schedule=\'linear\''),
        ({"epochs": 0}, r"`epochs` must be a positive integer\. Received: epochs=0"),
        ({"averaging": 1.0}, r"`averaging` must be in \[0, 1\)\. Received: averaging=1\.0"),
    ],
)
def test_a_wrong_configuration_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        TrainingConfig(**changes)


@pytest.mark.full
@pytest.mark.parametrize("momentum", [0.0, 0.6, 0.9])
def test_a_running_average_is_a_mean_at_first_and_exponential_later(momentum, random):
    steps = random.normal(size=(7, 3))
    average = RunningAverage(momentum)
    expected = steps[0]
    for count, step in enumerate(steps, start=1):
        average.update([step])
        expected = expected + max(1 - momentum, 1 / count) * (step - expected)
        np.testing.assert_allclose(average.values[0], expected, rtol=1e-12)
        if count <= 1 / (1 - momentum):
            np.testing.assert_allclose(expected, steps[:count].mean(0), rtol=1e-12)


@pytest.mark.full
def test_predict_and_export_need_a_trained_model():
    with pytest.raises(ValueError, match=r"`predict` needs a trained model\. Call `fit` first\."):
        make_trainer().predict(make_subset(1, seed=3))
    with pytest.raises(ValueError, match=r"`export` needs a trained model\. Call `fit` first\."):
        make_trainer().export()


@pytest.mark.full
def test_a_validation_loss_that_is_not_finite_ends_the_training(trainer, monkeypatch):
    configured = trainer(epochs=1, learning_rate=1e38)
    # With one step, the training loss is still finite.
    monkeypatch.setattr(configured, "train_set", make_subset(8, seed=1))
    with pytest.raises(TrainingError, match=r"became \S+ on the validation part after epoch 1, with seed 1"):
        configured.fit(1)
