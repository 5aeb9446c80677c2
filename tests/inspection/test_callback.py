"""Maps after each epoch of a training."""

import keras
import numpy as np
import pytest

import limelight as ll
from limelight.maps import AttentionMaps


@pytest.fixture
def model():
    steps = keras.Input((5, 4))
    hidden = ll.layers.SelfAttention(4, name="reader")(steps)
    model = keras.Model(steps, ll.layers.AttentionPooling(name="pool")(hidden))
    model.compile("adam", "mse")
    return model


@pytest.fixture
def data(random):
    return random.normal(size=(6, 5, 4)).astype("float32"), random.normal(size=(6, 4)).astype("float32")


def test_maps_of_each_epoch(model, data, tmp_path):
    before = ll.capture(model, data[0][:2])
    callback = ll.AttentionCallback(tmp_path / "epochs", data[0][:2], tokens=[["a"] * 5, ["b"]], layers="reader")
    model.fit(*data, epochs=2, verbose=0, callbacks=[callback])
    saved = [AttentionMaps.load(path) for path in ll.AttentionCallback.files(tmp_path / "epochs")]
    assert [list(maps) for maps in saved] == [["reader"]] * 3
    np.testing.assert_allclose(saved[0]["reader"].weights(), before["reader"].weights(), atol=1e-6)
    after = ll.capture(model, data[0][:2])
    np.testing.assert_allclose(saved[2]["reader"].weights(), after["reader"].weights(), atol=1e-6)
    assert list(saved[1]["reader"].tokens[1]) == ["b"]
    assert saved[0]["reader"].diff(saved[2]["reader"]).divergence[0] > 0


@pytest.mark.full
def test_a_training_that_continues_adds_files(model, data, tmp_path):
    callback = ll.AttentionCallback(tmp_path, data[0][:1], every=2)
    model.fit(*data, epochs=3, verbose=0, callbacks=[callback])
    assert [path.name for path in callback.files(tmp_path)] == ["epoch-0000.npz", "epoch-0002.npz", "epoch-0003.npz"]
    first = (tmp_path / "epoch-0000.npz").read_bytes()
    model.fit(*data, initial_epoch=3, epochs=4, verbose=0, callbacks=[callback])
    assert (tmp_path / "epoch-0000.npz").read_bytes() == first
    assert (tmp_path / "epoch-0004.npz").exists()


@pytest.mark.full
def test_the_callback_is_for_training(data, tmp_path):
    with pytest.raises(ValueError, match="`every` must be at least 1"):
        ll.AttentionCallback(tmp_path, data[0], every=0)
    with pytest.raises(ValueError, match="saves maps during `fit`"):
        ll.AttentionCallback(tmp_path, data[0])._save_maps(0)


@pytest.mark.full
def test_the_last_epoch_is_saved_if_training_stops_early(model, data, tmp_path):
    early_stopping = keras.callbacks.EarlyStopping("loss", min_delta=1e9, patience=0)
    for name, order in (("before", (0, 1)), ("after", (1, 0))):
        callback = ll.AttentionCallback(tmp_path / name, data[0][:1], every=10)
        callbacks = [callback, early_stopping]
        model.fit(*data, epochs=9, verbose=0, callbacks=[callbacks[index] for index in order])
        files = [path.name for path in callback.files(tmp_path / name)]
        assert files == ["epoch-0000.npz", f"epoch-{early_stopping.stopped_epoch + 1:04}.npz"]


@pytest.mark.full
def test_a_new_training_replaces_the_files_of_an_earlier_one(model, data, tmp_path):
    callback = ll.AttentionCallback(tmp_path, data[0][:1])
    model.fit(*data, epochs=3, verbose=0, callbacks=[callback])
    now = ll.capture(model, data[0][:1])["reader"].weights()
    model.fit(*data, epochs=1, verbose=0, callbacks=[callback])
    assert [path.name for path in callback.files(tmp_path)] == ["epoch-0000.npz", "epoch-0001.npz"]
    np.testing.assert_allclose(AttentionMaps.load(callback.files(tmp_path)[0])["reader"].weights(), now, atol=1e-6)
