"""Half precision on every implementation: scores beyond the range of float16, rows without permitted keys, and training."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from keras import ops

import limelight as ll
import oracles
from contracts.cases import B, N, S, T, V
from contracts.computing import numpy
from gradients import gradients
from layers.test_every_layer import LAYERS, WIDTH, call_layer
from limelight.engine import implementations, thresholds
from limelight.engine.call import make_call

# Vectors of this size whose numbers are about 150 have products beyond 1e5; float16 ends at 65504.
SIZE = 16
PARTS: dict[str, tuple[Callable[[], dict[str, Any]], Any]] = {
    "softmax": (dict, oracles.softmax()),
    "sink": (lambda: {"normalizer": ll.normalizers.Sink()}, oracles.sink()),
    "sparsemax": (lambda: {"normalizer": ll.normalizers.Sparsemax()}, oracles.entmax(2.0)),
    "top k": (lambda: {"normalizer": ll.normalizers.TopK(2)}, oracles.top_k(2, oracles.softmax())),
}
HALVES = ("float16", "bfloat16")
CASES = [
    (implementation, "softmax", dtype)
    for implementation in ("dense", "fused", "online_softmax", "blockwise")
    for dtype in HALVES
]
CASES += [
    ("online_softmax", "sink", "float16"),
    ("blockwise", "sparsemax", "bfloat16"),
    ("blockwise", "top k", "float16"),
]


def arrays() -> list[np.ndarray]:
    """Queries and keys whose products are large, and large values."""
    random = np.random.default_rng(53)
    shapes = ((B, N, T, SIZE), (B, N, S, SIZE))
    query, key = (150 * np.sign(random.normal(size=shape)) + random.normal(size=shape) for shape in shapes)
    return [query, key, 1e4 * random.normal(size=(B, N, S, V))]


def permitted() -> np.ndarray:
    """Random permissions (B, 1, T, S), none in the second row."""
    array = np.random.default_rng(59).random((B, 1, T, S)) < 0.7
    array[:, :, 1] = False
    return array


def large(random: np.random.Generator) -> Any:
    """An initializer with numbers whose products in a layer of `WIDTH` are about 1e5."""
    return lambda shape, dtype=None: ops.convert_to_tensor(150 * np.sign(random.normal(size=shape)), dtype)


@pytest.mark.parametrize(("implementation", "name", "dtype"), CASES)
def test_scores_beyond_the_range_of_float16(implementation: str, name: str, dtype: str) -> None:
    make, normalizer = PARTS[name]
    mask = permitted()
    parts = {"score": ll.scores.Dot(scale=1.0), "mask": ll.masks.ArrayMask(mask), **make()}
    query, key, value = (ops.cast(array, dtype) for array in arrays())
    rounded = [numpy(tensor) for tensor in (query, key, value)]
    assert np.abs(np.einsum("bnth,bnsh->bnts", *rounded[:2])).max() > 1e5
    call = make_call(query, key, **parts)
    with thresholds.using(implementation=implementation, rows=2, columns=3, scores_per_block=17):
        if implementations.choose(call.prepare()).name != implementation:
            pytest.skip(f"{keras.backend.backend()} has no such implementation")
        output = ll.attend(query, key, value, **parts)

        def loss(*tensors: Any) -> Any:
            return ops.mean(ops.cast(ll.attend(*tensors, **parts), "float32"))

        grads = gradients(loss, [query, key, value])
    assert keras.backend.standardize_dtype(output.dtype) == dtype
    expected = oracles.attend(*rounded, score=oracles.dot(1.0), mask=oracles.allowed(mask), normalizer=normalizer)
    np.testing.assert_allclose(numpy(output), expected, rtol=2**-7, atol=1.0)
    assert not numpy(output)[:, :, 1].any()
    assert all(np.isfinite(gradient).all() for gradient in grads)
    assert not grads[0][:, :, 1].any()
    assert grads[2].any()


@pytest.mark.parametrize("dtype", ["float16", pytest.param("bfloat16", marks=pytest.mark.full)])
def test_every_layer_trains_on_large_numbers(random: np.random.Generator, dtype: str) -> None:
    words = random.integers(1, 13, (4, 5))
    words[1, 3:] = words[2] = 0
    ids = keras.Input((None,), dtype="int32")
    steps = keras.layers.Embedding(13, WIDTH, mask_zero=True, embeddings_initializer=large(random))(ids)
    outputs = {}
    for name, make in LAYERS.items():
        output, weights = call_layer(make(dtype=f"mixed_{dtype}"), steps, return_attention_scores=True)
        # Not Keras's average over the steps, which is 0 / 0 for a sentence without words.
        read = output if len(output.shape) == 2 else ops.sum(output, axis=1)
        outputs |= {f"{name} number": keras.layers.Dense(1)(read), f"{name} weights": weights}
    model = keras.Model(ids, list(outputs.values()))
    # The outputs are large as well: a steeper loss has gradients of projections that float16 cannot hold.
    losses = [None if "weights" in name else lambda true, found: 1e-3 * found for name in outputs]
    model.compile(keras.optimizers.SGD(1e-3), losses)
    before = [numpy(variable) for variable in model.trainable_variables]
    targets = [np.zeros((4, 1), "float32") for _ in outputs]
    history = model.fit(words, targets, batch_size=4, epochs=2, verbose=0).history
    assert np.isfinite(history["loss"]).all()
    after = [numpy(variable) for variable in model.trainable_variables]
    assert all(np.isfinite(variable).all() for variable in after)
    assert sum(not np.array_equal(*pair) for pair in zip(before, after, strict=True)) > len(after) // 2
    for name, found in zip(outputs, model.predict(words, verbose=0), strict=True):
        assert np.isfinite(found).all(), name
        if "weights" in name:
            assert not found[2].any(), name
            assert not found[1, ..., 3:].any(), name
