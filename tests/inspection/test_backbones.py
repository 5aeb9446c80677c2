"""The attention backbones of keras-hub: what is captured equals what Keras computes, and nothing false is said of it."""

import os

import numpy as np
import pytest

from inspection import backbones

keras_hub = pytest.importorskip("keras_hub", reason="needs keras-hub: pip install --no-deps keras-hub regex")

pytestmark = [
    pytest.mark.skipif(os.environ.get("LIMELIGHT_TESTS") != "all", reason="runs with LIMELIGHT_TESTS=all"),
    # keras-hub passes masked inputs to layers of its own that do not take masks.
    pytest.mark.filterwarnings("ignore::UserWarning"),
]
# The weights of XLNet do lie on padding, and on JAX and TensorFlow two others mask queries instead of keys.
FINDINGS = {"XLNet": {"missing mask (warning)", "weight on padding (warning)"}}
if os.environ["KERAS_BACKEND"] != "torch":
    FINDINGS |= {name: {"ignored mask (error)", "weight on padding (warning)"} for name in ("ESM-2", "RoFormer v2")}
# Two call TensorFlow on every backend, and the tests of the others run without it.
CASES = [
    pytest.param(
        backbone, marks=pytest.mark.skipif(os.environ["KERAS_BACKEND"] != "tensorflow", reason="needs TensorFlow")
    )
    if backbone in ("SegFormer", "Stable Diffusion 3")
    else backbone
    for backbone in backbones.BACKBONES
]


@pytest.mark.parametrize("backbone", CASES)
def test_capture_lint_and_upgrade_of_a_backbone(backbone):
    measured = backbones.measure(backbone)
    assert measured["unchanged"]
    assert measured["maps"] > 0
    assert measured["wrong"] == []
    assert measured["capture"] == []
    assert {finding.split(":")[0] for finding in measured["lint"]} == FINDINGS.get(backbone, set())
    # A model is upgraded, with equal outputs, or refused with the reason.
    assert measured["replaced"] is not None or measured["upgrade"][0].startswith("ValueError: The copy must")


@pytest.mark.parametrize("backbone", ["ESM-2", "RoFormer v2"])
def test_an_ignored_mask_shows_in_the_outputs(backbone):
    """Where lint finds an ignored mask, more padding changes the outputs of the other tokens; elsewhere it does not."""
    import keras

    model, data = backbones.build(backbone)
    data = {name: keras.ops.convert_to_numpy(array) for name, array in data.items()}
    longer = {name: np.pad(array, ((0, 0), (0, 4))) for name, array in data.items()}
    outputs, expected = (keras.ops.convert_to_numpy(model(arrays, training=False)) for arrays in (longer, data))
    difference = np.abs(outputs[:, : expected.shape[1]] - expected)[data["token_ids"] > 0].max()
    assert difference > 0.1 if backbone in FINDINGS else difference < 1e-5
