"""Trainings depend on the seed alone, measure every example once, keep the best epoch, and stop when the loss is not finite."""

import functools

import keras
import numpy as np
import pytest

from limelight.data import LengthBatches
from limelight.exceptions import TrainingError
from limelight.study.training import RunningAverage, Subset, Trainer, fill_batch, model_inputs, predict


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
    return Subset(sequences, np.array([int(ids.mean() > 5.5) for ids in sequences]))


def make_trainer(dropout=0.4):
    return Trainer(
        functools.partial(bag_of_words, dropout), make_subset(29, seed=1), make_subset(13, seed=2),
        epochs=3, patience=3, batch_size=8, learning_rate=0.05, averaging=0.5, on_step=Counter(),
    )  # fmt: skip


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

    def configure(**changes):
        settings = {"epochs": 3, "patience": 3, "learning_rate": 0.05, "on_step": Counter(), **changes}
        settings.setdefault("validation_set", validation)
        for name, value in settings.items():
            setattr(shared, name, value)
        return shared

    return configure


def test_a_training_depends_on_its_seed_alone(trainer):
    first, second = trainer(), make_trainer()
    first.fit(1)
    after_another, alone = first.fit(2), second.fit(2)
    for name, values in alone["history"].items():
        assert after_another["history"][name] == pytest.approx(values, rel=1e-5)
    test = make_subset(17, seed=3).sequences
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
    configured = trainer(epochs=4, patience=4, validation_set=Subset(validation.sequences, 1 - validation.labels))
    summary = configured.fit(5)
    losses = summary["history"]["val_loss"]
    assert losses == sorted(losses)
    assert losses[0] < losses[-1]
    assert summary["best_epoch"] == 1
    chosen = configured.predict(validation.sequences)[np.arange(13), 1 - validation.labels]
    assert -np.log(chosen).mean() == pytest.approx(losses[0], rel=1e-5)


def test_patience_ends_a_training(trainer, validation):
    configured = trainer(epochs=9, patience=2, validation_set=Subset(validation.sequences, 1 - validation.labels))
    summary = configured.fit(5)
    assert summary["epochs"] == 3
    assert not summary["stopped_by_limit"]
    # The best epoch was not the last one, but two more were to be tried.
    configured.epochs = 2
    summary = configured.fit(5)
    assert (summary["best_epoch"], summary["stopped_by_limit"]) == (1, True)


def test_an_epoch_has_at_least_the_given_number_of_steps():
    def train(epochs, epoch_steps):
        counter = Counter()
        trainer = Trainer(
            functools.partial(bag_of_words, 0.0), make_subset(29, seed=1), make_subset(13, seed=2), epochs=epochs,
            epoch_steps=epoch_steps, patience=9, batch_size=8, learning_rate=0.05, averaging=0.0, on_step=counter,
        )  # fmt: skip
        summary = trainer.fit(1)
        assert counter.steps == trainer.max_steps
        return trainer.passes, counter.steps, summary

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
    configured = make_trainer(dropout=0.0)
    configured.epochs, configured.learning_rate = 1, 1e-9
    history = configured.fit(1)["history"]
    train_set = configured.train_set
    probabilities = configured.predict(train_set.sequences)
    assert history["loss"] == pytest.approx([-np.log(probabilities[np.arange(29), train_set.labels]).mean()], rel=1e-5)
    assert history["accuracy"] == pytest.approx([(probabilities.argmax(1) == train_set.labels).mean()])


def test_predictions_keep_the_order_of_the_examples(trainer):
    configured = trainer(epochs=1)
    configured.fit(1)
    sequences = make_subset(19, seed=3).sequences
    together = configured.predict(sequences)
    assert together.shape == (19, 2)
    for index in (0, 7, 18):
        alone = keras.ops.convert_to_numpy(configured.model(sequences[index][None], training=False))
        np.testing.assert_allclose(together[index], alone[0], rtol=1e-5)


def test_a_saved_model_predicts_the_same(trainer, tmp_path):
    configured = trainer(epochs=1)
    configured.fit(1)
    configured.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert not loaded.compiled
    sequences = make_subset(5, seed=3).sequences
    np.testing.assert_array_equal(predict(loaded, sequences, 8), configured.predict(sequences))


def test_a_loss_that_is_not_finite_ends_the_training(trainer):
    with pytest.raises(
        TrainingError,
        match=r"The loss must stay finite\. It became nan in epoch 1, step \d, with seed 1\. "
        r"The learning rate \(1e\+38\) is probably too high: lower it with --learning-rate\.",
    ):
        trainer(learning_rate=1e38).fit(1)


def test_on_step_can_end_a_training(trainer):
    def interrupt():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trainer(on_step=interrupt).fit(1)


@pytest.mark.parametrize("kind", ["ids", "series"])
def test_a_batch_is_filled_with_a_real_row(kind):
    sequences = [
        np.full((length, 2), length, "float32") if kind == "series" else np.full(length, length) for length in (3, 5)
    ]
    batch = next(iter(LengthBatches(sequences, np.array([0, 1]), batch_size=4)))
    filled = fill_batch(batch, 4)
    np.testing.assert_array_equal(filled.values, batch.values[[0, 1, 0, 0]])
    np.testing.assert_array_equal(filled.mask, batch.mask[[0, 1, 0, 0]])
    np.testing.assert_array_equal(filled.labels, [0, 1, 0, 0])
    assert fill_batch(batch, 2) is batch
    inputs = model_inputs(filled.values, filled.mask)
    if kind == "ids":
        assert inputs is filled.values
    else:
        assert set(inputs) == {"steps", "mask"}


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


def test_predict_and_save_need_a_trained_model(tmp_path):
    with pytest.raises(ValueError, match=r"`predict` needs a trained model\. Call `fit` first\."):
        make_trainer().predict([])
    with pytest.raises(ValueError, match=r"`save` needs a trained model\. Call `fit` first\."):
        make_trainer().save(tmp_path / "model.keras")


def test_a_validation_loss_that_is_not_finite_ends_the_training(trainer, monkeypatch):
    configured = trainer(epochs=1, learning_rate=1e38)
    # With one step, the training loss is still finite.
    monkeypatch.setattr(configured, "train_set", make_subset(8, seed=1))
    with pytest.raises(
        TrainingError, match=r"became \S+ on the validation part after epoch 1, with seed 1.*--learning-rate"
    ):
        configured.fit(1)
