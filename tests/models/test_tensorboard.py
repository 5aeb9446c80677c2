"""Logs for TensorBoard, read by a parser of records and protocol buffers that is written on its own, and by TensorFlow."""

import struct

import keras
import numpy as np
import pytest

import limelight as ll
from limelight import models
from limelight.models.tensorboard import EventWriter, describe_heads


def parse(content):
    """Yield the fields (number, value) of a protocol buffer."""
    position = 0
    while position < len(content):
        number, kind = content[position] >> 3, content[position] & 7
        position += 1
        if kind in (1, 5):
            size, code = {1: (8, "<d"), 5: (4, "<f")}[kind]
            yield number, struct.unpack(code, content[position : position + size])[0]
            position += size
            continue
        value = shift = 0
        while True:
            value |= (content[position] & 127) << shift
            shift, position = shift + 7, position + 1
            if not content[position - 1] & 128:
                break
        if kind == 2:
            yield number, content[position : position + value]
            position += value
        else:
            yield number, value


def read(path):
    """Return the scalars of a file of events: {(step, tag): value}."""
    content, position, scalars = path.read_bytes(), 0, {}
    while position < len(content):
        (length,) = struct.unpack("<Q", content[position : position + 8])
        event = dict(parse(content[position + 12 : position + 12 + length]))
        position += length + 16
        for _, value in parse(event.get(5, b"")):
            fields = dict(parse(value))
            scalars[event[2], fields[1].decode()] = fields[2]
    return scalars


def test_records_can_be_read(tmp_path):
    writer = EventWriter(tmp_path / "logs")
    writer.write(300, {"loss": 0.25, "a/very/long/tag" * 20: -3.0})
    assert read(writer.path) == {(300, "loss"): 0.25, (300, "a/very/long/tag" * 20): -3.0}
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        # TensorFlow checks the checksums.
        events = list(tf.compat.v1.train.summary_iterator(str(writer.path)))
        assert events[0].file_version == "brain.Event:2"
        assert {value.tag: value.simple_value for value in events[1].summary.value}["loss"] == 0.25


def test_entropies_and_logits_by_hand(random):
    steps = keras.Input((None, 4))
    attention = ll.layers.MultiHeadAttention(2, 3, name="attention")
    model = keras.Model(steps, attention(steps, steps))
    x = random.normal(size=(2, 5, 4)).astype("float32")
    values = describe_heads(model, x)
    dense = {name: getattr(attention, f"{name}_dense") for name in ("query", "key")}
    query, key = (keras.ops.convert_to_numpy(layer(x)) for layer in dense.values())
    logits = np.einsum("bthd,bshd->hbts", query, key) / 3**0.5
    weights = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    for head in range(2):
        entropy = -(weights[head] * np.log(weights[head])).sum(-1).mean()
        assert values[f"entropy/attention/head_{head}"] == pytest.approx(entropy, rel=1e-4)
        assert values[f"largest_logit/attention/head_{head}"] == pytest.approx(logits[head].max(), rel=1e-4)


@pytest.mark.full
def test_a_training_writes_its_losses(tmp_path):
    settings = {"epochs": 2, "random_state": 1, "verbose": False, "units": 4, "embedding_dim": 3, "encoder": None}
    model = models.TextClassifier(training={"epoch_steps": 1, "tensorboard": tmp_path}, **settings)
    model.fit(["a good film", "a bad film"] * 12, [1, 0] * 12)
    (path,) = tmp_path.glob("seed-*/events*")
    scalars = read(path)
    for name, history in model.history_["history"].items():
        received = [scalars[step, name] for step in range(1, len(history) + 1)]
        np.testing.assert_allclose(received, history, rtol=1e-6)
    assert scalars[1, "entropy/attention/head_0"] > 0
