"""A training depends on its seed alone, measures every example once, keeps its best epoch, and ends where a loss is lost."""

import functools

import keras
import numpy as np
import pytest

from limelight.data import LengthBatches
from limelight.study.errors import TrainingError
from limelight.study.training import Average, Part, Trainer, fill, inputs_of, predict


class Count:
    """A watcher that counts."""

    def __init__(self):
        self.steps = 0

    def step(self, steps):
        self.steps += steps


def bag_of_words(dropout):
    """A classifier that is quickly compiled: with dropout, its random states matter."""
    ids = keras.Input((None,), dtype="int32")
    vectors = keras.layers.Embedding(11, 3, mask_zero=True)(ids)
    vector = keras.layers.GlobalAveragePooling1D()(keras.layers.Dropout(dropout)(vectors))
    return keras.Model(ids, keras.layers.Dense(2, "softmax")(vector))


def part(count, seed):
    """Texts of words 1 to 10, of class 1 where words above 5 prevail."""
    random = np.random.default_rng(seed)
    sequences = [random.integers(1, 11, size=random.integers(1, 9)).astype(np.int32) for _ in range(count)]
    return Part(sequences, np.array([int(ids.mean() > 5.5) for ids in sequences]))


def made(dropout=0.4):
    return Trainer(
        functools.partial(bag_of_words, dropout), part(29, seed=1), part(13, seed=2),
        epochs=3, patience=3, batch_size=8, learning_rate=0.05, averaging=0.5, watcher=Count(),
    )  # fmt: skip


@pytest.fixture(scope="module")
def shared():
    """One trainer, compiled once: a training depends on its seed alone, as the first test shows."""
    return made()


@pytest.fixture(scope="module")
def validation():
    return part(13, seed=2)


@pytest.fixture
def trainer(shared, validation):
    """The shared trainer as it was made, but for what is named."""

    def changed(**changes):
        settings = {"epochs": 3, "patience": 3, "learning_rate": 0.05, "watcher": Count(), **changes}
        settings.setdefault("validation_part", validation)
        for name, value in settings.items():
            setattr(shared, name, value)
        return shared

    return changed


def test_a_training_depends_on_its_seed_alone(trainer):
    first, second = trainer(), made()
    first.fit(1)
    after_another, alone = first.fit(2), second.fit(2)
    for name, values in alone["history"].items():
        assert after_another["history"][name] == pytest.approx(values, rel=1e-5)
    test = part(17, seed=3).sequences
    np.testing.assert_allclose(first.predict(test), second.predict(test), rtol=1e-5)
    second.fit(1)
    assert np.abs(first.predict(test) - second.predict(test)).max() > 1e-4


def test_what_a_run_tells(trainer):
    watcher = Count()
    one = trainer(watcher=watcher)
    summary = one.fit(1)
    assert watcher.steps == one.most_steps == 3 * 4  # 29 examples in batches of 8
    assert summary["epochs"] == 3
    assert summary["parameters"] == 11 * 3 + 3 * 2 + 2
    assert summary["best_epoch"] == 1 + int(np.argmin(summary["history"]["val_loss"]))
    assert set(summary["history"]) == {"loss", "accuracy", "val_loss", "val_accuracy"}
    assert summary["history"]["loss"][-1] < summary["history"]["loss"][0]


def test_the_best_epoch_is_kept(trainer, validation):
    # What the model learns is wrong on the validation part: each epoch is worse than the one before.
    one = trainer(epochs=4, patience=4, validation_part=Part(validation.sequences, 1 - validation.labels))
    summary = one.fit(5)
    losses = summary["history"]["val_loss"]
    assert losses == sorted(losses)
    assert losses[0] < losses[-1]
    assert summary["best_epoch"] == 1
    chosen = one.predict(validation.sequences)[np.arange(13), 1 - validation.labels]
    assert -np.log(chosen).mean() == pytest.approx(losses[0], rel=1e-5)


def test_patience_ends_a_training(trainer, validation):
    one = trainer(epochs=9, patience=2, validation_part=Part(validation.sequences, 1 - validation.labels))
    assert one.fit(5)["epochs"] == 3


def test_a_measured_loss_is_that_of_every_example_once():
    # Without dropout, and with a step so small that the model stays as it is, the train part can be measured afterwards.
    one = made(dropout=0.0)
    one.epochs, one.learning_rate = 1, 1e-9
    history = one.fit(1)["history"]
    part = one.train_part
    probabilities = one.predict(part.sequences)
    assert history["loss"] == pytest.approx([-np.log(probabilities[np.arange(29), part.labels]).mean()], rel=1e-5)
    assert history["accuracy"] == pytest.approx([(probabilities.argmax(1) == part.labels).mean()])


def test_predictions_come_in_the_order_of_the_examples(trainer):
    one = trainer(epochs=1)
    one.fit(1)
    sequences = part(19, seed=3).sequences
    together = one.predict(sequences)
    assert together.shape == (19, 2)
    for place in (0, 7, 18):
        alone = keras.ops.convert_to_numpy(one.model(sequences[place][None], training=False))
        np.testing.assert_allclose(together[place], alone[0], rtol=1e-5)


def test_a_saved_model_predicts_the_same(trainer, tmp_path):
    one = trainer(epochs=1)
    one.fit(1)
    one.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert not loaded.compiled
    sequences = part(5, seed=3).sequences
    np.testing.assert_array_equal(predict(loaded, sequences, 8), one.predict(sequences))


def test_a_lost_loss_ends_the_training(trainer):
    with pytest.raises(
        TrainingError,
        match=r"The loss must stay a number\. It became nan in epoch 1, step \d, with seed 1\. .*"
        r"likely cause is a learning rate that is too high \(1e\+38\): lower it with --learning-rate\.",
    ):
        trainer(learning_rate=1e38).fit(1)


def test_a_watcher_can_end_a_training(trainer):
    class Stop(Count):
        def step(self, steps):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trainer(watcher=Stop()).fit(1)


@pytest.mark.parametrize("kind", ["ids", "series"])
def test_a_batch_is_filled_with_a_real_row(kind):
    sequences = [
        np.full((length, 2), length, "float32") if kind == "series" else np.full(length, length) for length in (3, 5)
    ]
    batch = next(iter(LengthBatches(sequences, np.array([0, 1]), batch_size=4)))
    filled = fill(batch, 4)
    np.testing.assert_array_equal(filled.values, batch.values[[0, 1, 0, 0]])
    np.testing.assert_array_equal(filled.mask, batch.mask[[0, 1, 0, 0]])
    np.testing.assert_array_equal(filled.labels, [0, 1, 0, 0])
    assert fill(batch, 2) is batch
    inputs = inputs_of(filled)
    if kind == "ids":
        assert inputs is filled.values
    else:
        assert set(inputs) == {"steps", "mask"}


@pytest.mark.parametrize("momentum", [0.0, 0.6, 0.9])
def test_an_average_is_a_mean_at_first_and_forgets_later(momentum, random):
    steps = random.normal(size=(7, 3))
    average = Average(momentum)
    expected = steps[0]
    for count, step in enumerate(steps, start=1):
        average.update([step])
        expected = expected + max(1 - momentum, 1 / count) * (step - expected)
        np.testing.assert_allclose(average.values[0], expected, rtol=1e-12)
        if count <= 1 / (1 - momentum):
            np.testing.assert_allclose(expected, steps[:count].mean(0), rtol=1e-12)


def test_nothing_comes_of_a_model_that_was_not_trained(tmp_path):
    with pytest.raises(ValueError, match=r"`predict` needs a model that was trained\. Call `fit` first\."):
        made().predict([])
    with pytest.raises(ValueError, match=r"`save` needs a model that was trained\. Call `fit` first\."):
        made().save(tmp_path / "model.keras")


def test_a_validation_loss_that_is_no_number_ends_the_training(trainer, monkeypatch):
    one = trainer(epochs=1, learning_rate=1e38)
    # One step: the loss before it is a number still.
    monkeypatch.setattr(one, "train_part", part(8, seed=1))
    with pytest.raises(
        TrainingError, match=r"became \S+ on the validation part after epoch 1, with seed 1.*--learning-rate"
    ):
        one.fit(1)
