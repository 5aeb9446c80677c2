"""Interrupted trainings of every estimator go on to the same result, and a save that fails loses nothing."""

import itertools
import resource

import numpy as np
import pytest

from limelight import models
from limelight._progress import Progress

pytestmark = pytest.mark.full

TEXTS = ["A good film.", "a bad film!", "good", "bad. Not good"] * 6
CLASSES = [1, 0] * 12
NUMBERS = np.arange(24) % 4 * 1.5
SERIES = [np.arange(2 * length, dtype=float).reshape(length, 2) / 9 for length in (5, 3, 7, 4)] * 6
LONG = [10 + np.sin(np.arange(length) / 2) for length in (40, 30)]
SMALL = {"units": 4, "epochs": 2, "batch_size": 8, "random_state": 3}
CASES = {
    "TextClassifier": ({"encoder": "conv", "embedding_dim": 3}, (TEXTS, CLASSES)),
    "TextRegressor": ({"encoder": "conv", "embedding_dim": 3}, (TEXTS, NUMBERS)),
    "SeriesClassifier": ({"encoder": "conv"}, (SERIES, CLASSES)),
    "SeriesRegressor": ({"encoder": "conv"}, (SERIES, NUMBERS)),
    "DocumentClassifier": ({"embedding_dim": 3}, (TEXTS, CLASSES)),
    "Translator": ({"embedding_dim": 3, "scheduled_sampling": 0.5, "max_length": 4}, (TEXTS, TEXTS)),
    "Forecaster": ({"horizon": 3, "past": 7}, (LONG,)),
}


@pytest.mark.parametrize("name", CASES)
def test_an_interrupted_fit_goes_on_to_the_same_model(name, tmp_path, monkeypatch):
    params, data = CASES[name]
    path = tmp_path / "training.ckpt"

    def make(**training):
        return getattr(models, name)(**SMALL, **params, training={"epoch_steps": 3, **training})

    steps = itertools.count(1)
    monkeypatch.setattr(Progress, "step", lambda progress: next(steps))
    whole = make().fit(*data)
    num_steps, steps = next(steps) - 1, itertools.count(1)

    def stop(progress):
        if next(steps) == 5:
            raise KeyboardInterrupt

    monkeypatch.setattr(Progress, "step", stop)
    model = make(checkpoint=path, checkpoint_seconds=0.0)
    with pytest.raises(KeyboardInterrupt):
        model.fit(*data)
    assert path.exists()
    model.fit(*data)
    # No step was taken twice: the fifth was interrupted before it was taken.
    assert next(steps) - 2 == num_steps
    assert not path.exists()
    assert model.history_["history"] == whole.history_["history"]
    for weight, expected in zip(model.model_.get_weights(), whole.model_.get_weights(), strict=True):
        np.testing.assert_array_equal(weight, expected)


@pytest.fixture
def full_disk():
    """Let no file grow beyond a size, as on a full disk."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill(size):
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))

    yield fill
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.mark.parametrize("size", [0, 2000, 12_000])
def test_a_full_disk_loses_nothing(size, tmp_path, full_disk):
    model = models.SeriesRegressor(**SMALL, encoder="conv", training={"epoch_steps": 1}).fit(SERIES, NUMBERS)
    path = tmp_path / "model.keras"
    model.save(path)
    content, expected = path.read_bytes(), model.predict(SERIES[:3])
    full_disk(size)
    with pytest.raises(OSError, match=r"model\.keras"):
        model.save(path)
    assert [each.name for each in tmp_path.iterdir()] == ["model.keras"]
    assert path.read_bytes() == content
    full_disk(resource.RLIM_INFINITY)
    np.testing.assert_array_equal(models.load(path).predict(SERIES[:3]), expected)


def test_a_path_that_cannot_be_written_is_one_error(tmp_path):
    model = models.SeriesRegressor(**SMALL, encoder="conv", training={"epoch_steps": 1}).fit(SERIES, NUMBERS)
    (tmp_path / "file").write_text("x")
    with pytest.raises(OSError, match="file"):
        model.save(tmp_path / "file" / "model.keras")
    (tmp_path / "folder.keras").mkdir()
    with pytest.raises(OSError, match="only replace a regular file"):
        model.save(tmp_path / "folder.keras")
    assert model.predict(SERIES[:3]).shape == (3,)
