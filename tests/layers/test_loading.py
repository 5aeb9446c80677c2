"""`import limelight` is enough to load what limelight made, whatever is imported when."""

import json
import os
import subprocess
import sys

import keras
import numpy as np
import pytest

import limelight as ll
from limelight import _registration

IMPORTS = {
    "limelight first": "import limelight, keras",
    "keras first": "import keras, limelight",
    "keras looked for first": "import importlib.util, limelight; importlib.util.find_spec('keras'); import keras",
}

PROGRAM = """
{imports}
import sys, json, numpy as np
assert "limelight.layers" not in sys.modules
folder = sys.argv[1]
part = keras.saving.deserialize_keras_object(json.load(open(folder + "/part.json")))
weights = limelight.attention_weights(np.eye(5)[:, :2], np.eye(5)[:, :2], mask=part)
np.save(folder + "/part.npy", keras.ops.convert_to_numpy(weights))
model = keras.models.load_model(folder + "/model.keras")
np.save(folder + "/output.npy", model.predict(np.load(folder + "/input.npy"), verbose=0))
"""


@pytest.mark.backend_free
def test_every_registered_class_has_a_placeholder() -> None:
    import limelight.models
    import limelight.positions
    import limelight.recipes  # noqa: F401

    objects = keras.saving.get_custom_objects()
    names = {name.removeprefix("limelight>") for name in objects if name.startswith("limelight>")}
    assert names == set(_registration._NAMES)
    assert all(isinstance(objects[f"limelight>{name}"], type) for name in names)
    assert not any(isinstance(finder, _registration._KerasFinder) for finder in sys.meta_path)


@pytest.mark.full
@pytest.mark.subprocess
@pytest.mark.parametrize("imports", IMPORTS.values(), ids=IMPORTS)
def test_importing_limelight_is_enough_to_load(imports: str, random: np.random.Generator, tmp_path) -> None:
    steps = keras.Input((None, 8))
    hidden = ll.layers.MultiHeadAttention(
        2, 4, score=ll.positions.Rotary(ll.scores.Dot()), normalizer=ll.normalizers.Sink()
    )(steps, steps)
    model = keras.Model(steps, ll.layers.AttentionPooling()(hidden))
    model.save(tmp_path / "model.keras")
    data = random.normal(size=(3, 5, 8)).astype("float32")
    np.save(tmp_path / "input.npy", data)
    mask = ll.masks.Causal() & ~ll.masks.SlidingWindow(1)
    (tmp_path / "part.json").write_text(json.dumps(keras.saving.serialize_keras_object(mask)))
    command = [sys.executable, "-c", PROGRAM.format(imports=imports), str(tmp_path)]
    environment = {**os.environ, "KERAS_BACKEND": keras.backend.backend()}
    process = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
    assert process.returncode == 0, process.stderr
    np.testing.assert_allclose(np.load(tmp_path / "output.npy"), model.predict(data, verbose=0), atol=1e-5)
    expected = ll.attention_weights(np.eye(5)[:, :2], np.eye(5)[:, :2], mask=mask)
    np.testing.assert_allclose(np.load(tmp_path / "part.npy"), keras.ops.convert_to_numpy(expected), atol=1e-6)
