"""The contract of traced models: compiled, rematerialized or built inside a trace, they compute what they do otherwise."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import ops

import limelight as ll
from contracts.cases import CASES, N
from contracts.representative import full
from selection import runs_everything

WIDTH = 6
BACKEND = keras.backend.backend()
# Batches and lengths of queries and keys.
SHAPES = ((4, 5, 7), (3, 6, 4))

LAYERS: dict[str, Callable[[Any, Any], Any]] = {
    "keras multi-head": lambda x, m: keras.layers.MultiHeadAttention(2, 3)(x, m),
    "keras GRU": lambda x, m: keras.layers.GRU(3, return_sequences=True)(x),
    "attention": lambda x, m: ll.layers.Attention(score=ll.scores.Additive(4))(x, m),
    "additive attention": lambda x, m: ll.layers.AdditiveAttention()(x, m),
    "multi-head": lambda x, m: ll.layers.MultiHeadAttention(4, 3, num_kv_heads=2, use_gate=True)(x, m),
    "multi-head latent": lambda x, m: ll.layers.MultiHeadAttention(2, 3, latent_dim=4)(x, m),
    "self-attention": lambda x, m: ll.layers.SelfAttention(4)(m),
    "pooling": lambda x, m: ll.layers.AttentionPooling()(m),
    "hierarchical pooling": lambda x, m: ll.layers.HierarchicalPooling(4)(
        ops.expand_dims(x, 2) + ops.expand_dims(m, 1)
    ),
    "linear": lambda x, m: ll.layers.LinearAttention(2, 3)(x, m),
    "linear causal": lambda x, m: ll.layers.LinearAttention(2, 3, causal=True)(m, m),
    "recurrent": lambda x, m: make_recurrent()(x, m),
    "recurrent after": lambda x, m: make_recurrent(attend="after")(x, m),
}
PARTS = {
    f"part: {case.name}": lambda x, m, case=case: ll.layers.MultiHeadAttention(N, case.size, **case.parts())(x, m)
    for case in CASES
    if not case.fixed
}
RECURRENT_PARTS = {
    f"recurrent: {name}": lambda x, m, make=make: make_recurrent(**make())(x, m)
    for name, make in {
        "bilinear": lambda: {"score": ll.scores.Bilinear()},
        "location": lambda: {"score": ll.scores.LocationSensitive(4, kernel_size=3)},
        "shaw": lambda: {"score": ll.scores.Additive(4) + ll.positions.Shaw(2)},
        "gaussian": lambda: {"score": ll.scores.Additive(4) + ll.positions.GaussianWindow(2.0)},
        "window": lambda: {"mask": ll.masks.SlidingWindow(2, 2)},
        "monotonic": lambda: {"normalizer": ll.normalizers.Monotonic()},
        "sparsemax": lambda: {"normalizer": ll.normalizers.Sparsemax()},
        "entmax": lambda: {"normalizer": ll.normalizers.Entmax()},
        "top k": lambda: {"normalizer": ll.normalizers.TopK(2)},
        "sink": lambda: {"normalizer": ll.normalizers.Sink(0.5, learned=True)},
    }.items()
}
MODELS = {**LAYERS, **PARTS, **RECURRENT_PARTS}
NOT_UNDER_XLA = {"part: monotonic", *(f"recurrent: {name}" for name in ("shaw", "monotonic", "sparsemax", "entmax"))}


def make_recurrent(**arguments: Any) -> keras.layers.Layer:
    """Return a recurrent layer whose cell is as wide as its memory."""
    cell = ll.layers.AttentionCell(keras.layers.GRUCell(WIDTH), WIDTH, **arguments)
    return ll.layers.AttentionRNN(cell, return_sequences=True)


def make_model(name: str, is_masked: bool = True) -> keras.Model:
    """Return the model of a case, of queries and of a memory whose padding is masked; its weights are the same each time."""
    keras.utils.set_random_seed(7)
    inputs = [keras.Input((None, WIDTH)), keras.Input((None, WIDTH))]
    return keras.Model(inputs, MODELS[name](*map(keras.layers.Masking(), inputs) if is_masked else inputs))


def make_arrays(batch: int, num_queries: int, num_keys: int) -> list[np.ndarray]:
    """Return queries, and a memory whose first example ends with padding."""
    random = np.random.default_rng(3)
    steps, memory = (random.normal(size=(batch, length, WIDTH)).astype("float32") for length in (num_queries, num_keys))
    memory[0, -2:] = 0
    return [steps, memory]


def train(model: keras.Model, shapes: Any = SHAPES, **compilation: Any) -> list[np.ndarray]:
    """Train a model by one step for each shape, and return its weights."""
    model.compile(keras.optimizers.SGD(0.1), "mean_squared_error", **compilation)
    for shape in shapes:
        arrays = make_arrays(*shape)
        model.train_on_batch(arrays, np.ones(ops.shape(model(arrays)), "float32"))
    return model.get_weights()


def check_equal(actual: list[np.ndarray], expected: list[np.ndarray]) -> None:
    for array, value in zip(actual, expected, strict=True):
        np.testing.assert_allclose(array, value, atol=1e-5)


@pytest.mark.skipif(BACKEND != "tensorflow", reason="JAX always compiles by XLA, PyTorch never")
@pytest.mark.parametrize("name", MODELS if runs_everything() else ["recurrent"])
def test_training_under_xla_is_equal(name: str) -> None:
    if name in NOT_UNDER_XLA:
        pytest.skip("XLA cannot compile its gradient inside a loop; docs/export.md says so")
    # XLA compiles for each shape anew.
    shapes = SHAPES if runs_everything() else SHAPES[:1]
    check_equal(train(make_model(name), shapes, jit_compile=True), train(make_model(name), shapes, jit_compile=False))


@pytest.mark.skipif(BACKEND != "jax", reason="a RematScope does nothing here that could go wrong")
@pytest.mark.parametrize("name", MODELS if runs_everything() else ["multi-head"])
def test_training_in_a_remat_scope_is_equal(name: str) -> None:
    if "GRU" in name or "recurrent" in name or "gumbel" in name:
        pytest.skip(
            "Keras's recurrent layers and noise read `training`, which a RematScope traces, as Keras's Dropout does"
        )
    # Without implicit masks, which Keras loses in a RematScope.
    with keras.RematScope(mode="full"):
        model = make_model(name, is_masked=False)
    check_equal(train(model, SHAPES[:1]), train(make_model(name, is_masked=False), SHAPES[:1]))


@pytest.mark.skipif(BACKEND == "torch", reason="PyTorch compiles nothing")
@pytest.mark.parametrize("name", MODELS if runs_everything() else ["part: monotonic"])
def test_compiled_models_predict_any_length(name: str) -> None:
    model = make_model(name)
    for shape in SHAPES:
        arrays = make_arrays(*shape)
        expected = ops.convert_to_numpy(model(arrays, training=False))
        np.testing.assert_allclose(model.predict(arrays, verbose=0), expected, atol=1e-5, err_msg=f"{shape}")


@keras.saving.register_keras_serializable("tests")
class Reader(keras.Layer):
    """A user's layer whose components are first built when it is called."""

    def __init__(self, score: Any = None, normalizer: Any = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.score, self.normalizer = (
            keras.saving.deserialize_keras_object(part) if isinstance(part, dict) else part
            for part in (score, normalizer)
        )

    def call(self, inputs: Any) -> Any:
        return ll.attend(inputs, inputs, inputs, score=self.score, normalizer=self.normalizer)

    def get_config(self) -> dict[str, Any]:
        parts = {"score": self.score, "normalizer": self.normalizer}
        serialized = {name: keras.saving.serialize_keras_object(part) for name, part in parts.items()}
        return {**super().get_config(), **serialized}


@pytest.mark.parametrize(
    "make_parts",
    [
        full(lambda: {"score": ll.scores.Additive(4)}),
        lambda: {"score": ll.scores.QKNorm(ll.scores.Dot()) + ll.positions.Shaw(2)},
        full(lambda: {"normalizer": ll.normalizers.Sink(0.5, learned=True)}),
        full(lambda: {"normalizer": ll.normalizers.Monotonic()}),
    ],
    ids=["additive", "sum", "sink", "monotonic"],
)
def test_components_built_inside_a_trace_are_saved(make_parts: Callable[[], dict[str, Any]], tmp_path: Path) -> None:
    steps = keras.Input((None, WIDTH))
    model = keras.Model(steps, Reader(**make_parts())(steps))
    for weight in model.weights:
        weight.assign(weight + 0.3 * keras.random.normal(weight.shape))
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    array = make_arrays(2, 5, 5)[0]
    assert model.weights
    np.testing.assert_allclose(*(ops.convert_to_numpy(m(array)) for m in (loaded, model)), rtol=1e-6)
