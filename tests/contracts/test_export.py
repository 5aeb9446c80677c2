"""The contract of exported models: at lengths and batches that the exporter has not seen, they compute what the model does."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import ops

import limelight as ll
from compiling import predict
from contracts.cases import CASES, N
from selection import is_full, runs_everything

WIDTH = 6
# Batches and lengths of queries and keys. An exporter sees 1 or 2 of each.
SHAPES = ((2, 5, 7), (3, 4, 1), (1, 1, 3))
FORMATS = {"torch": ("onnx", "torch"), "tensorflow": ("onnx", "tf_saved_model"), "jax": ("stablehlo",)}
Run = Callable[..., list[np.ndarray]]


def attend(layer: keras.layers.Layer, query: Any, memory: Any, **kwargs: Any) -> list[Any]:
    """Return the output of a layer that takes queries and values, and its weights."""
    return list(layer(query, memory, return_attention_scores=True, **kwargs))


LAYERS: dict[str, Callable[[Any, Any], Any]] = {
    "keras multi-head": lambda x, m: attend(keras.layers.MultiHeadAttention(2, 3), x, m),
    "keras multi-head causal": lambda x, m: attend(keras.layers.MultiHeadAttention(2, 3), x, x, use_causal_mask=True),
    "keras additive": lambda x, m: list(keras.layers.AdditiveAttention()([x, m], return_attention_scores=True)),
    "keras GRU": lambda x, m: [keras.layers.GRU(3, return_sequences=True)(x)],
    "attention": lambda x, m: attend(ll.layers.Attention(score=ll.scores.Additive(4)), x, m),
    "additive attention": lambda x, m: attend(ll.layers.AdditiveAttention(), x, m),
    "multi-head": lambda x, m: attend(ll.layers.MultiHeadAttention(4, 3, num_kv_heads=2, use_gate=True), x, m),
    "multi-head causal": lambda x, m: attend(ll.layers.MultiHeadAttention(2, 3), x, m, use_causal_mask=True),
    "multi-head window": lambda x, m: attend(ll.layers.MultiHeadAttention(2, 3, sliding_window=2), x, x),
    "multi-head latent": lambda x, m: attend(ll.layers.MultiHeadAttention(2, 3, latent_dim=4), x, m),
    "self-attention": lambda x, m: list(ll.layers.SelfAttention(4)(m, return_attention_scores=True)),
    "pooling": lambda x, m: list(ll.layers.AttentionPooling()(m, return_attention_scores=True)),
    "pooling by several queries": lambda x, m: list(
        ll.layers.AttentionPooling(score="dot", num_queries=2)(m, return_attention_scores=True)
    ),
    "hierarchical pooling": lambda x, m: list(
        ll.layers.HierarchicalPooling(4)(ops.expand_dims(x, 2) + ops.expand_dims(m, 1), return_attention_scores=True)
    ),
    "linear": lambda x, m: attend(ll.layers.LinearAttention(2, 3, features="favor"), x, m),
    "linear causal": lambda x, m: attend(ll.layers.LinearAttention(2, 3, causal=True), m, m),
    "recurrent": lambda x, m: [
        ll.layers.AttentionRNN(ll.layers.AttentionCell(keras.layers.GRUCell(4), WIDTH), return_sequences=True)(x, m)
    ],
}
PARTS = {
    f"part: {case.name}": lambda x, m, case=case: attend(
        ll.layers.MultiHeadAttention(N, case.size, **case.parts()), x, m
    )
    for case in CASES
    if not case.fixed
}
REPRESENTATIVE = ("multi-head causal", "pooling", "linear causal", "part: shaw", "part: gaussian")
# Exporters compile slowly: on the other backends, one model has fewer mechanisms.
REPRESENTATIVE += ("additive attention", "part: alibi") if is_full() else ()
MODELS = {
    # One model of several mechanisms, for the runs that do not test them all.
    "several": lambda x, m: [tensor for name in REPRESENTATIVE for tensor in {**LAYERS, **PARTS}[name](x, m)],
    **LAYERS,
    **PARTS,
}
# What cannot be exported, with Keras's own layer of the same kind where there is one; docs/export.md says why.
LOOPS = {"keras GRU", "recurrent", "part: monotonic"}
LIMITS = {
    ("torch", "onnx"): LOOPS | {"multi-head latent"},
    ("torch", "torch"): LOOPS,
    ("tensorflow", "onnx"): LOOPS | {"part: hardmax", "part: hard gumbel at rest"},
    ("tensorflow", "tf_saved_model"): set(),
    ("jax", "stablehlo"): LOOPS - {"part: monotonic"},
}
BACKEND = keras.backend.backend()


@functools.lru_cache(maxsize=1)
def make_model(name: str) -> keras.Model:
    """Return the model of a case, of queries and of a memory whose padding is masked: the same for all formats."""
    steps, memory = keras.Input((None, WIDTH), name="steps"), keras.Input((None, WIDTH), name="memory")
    masked = [keras.layers.Masking()(tensor) for tensor in (steps, memory)]
    model = keras.Model([steps, memory], MODELS[name](*masked))
    keras.utils.set_random_seed(7)
    for weight in model.weights:
        # Initial values such as zeros would hide what a weight does.
        weight.assign(weight + 0.3 * keras.random.normal(weight.shape))
    return model


@functools.lru_cache(maxsize=len(SHAPES))
def compute_expected(name: str, shape: tuple[int, int, int]) -> list[np.ndarray]:
    """Return the outputs of the model itself."""
    return keras.tree.flatten(predict(make_model(name), make_arrays(*shape)))


def make_arrays(batch: int, num_queries: int, num_keys: int) -> list[np.ndarray]:
    """Return queries, and a memory whose first example ends with padding."""
    random = np.random.default_rng(3)
    steps, memory = (random.normal(size=(batch, length, WIDTH)).astype("float32") for length in (num_queries, num_keys))
    memory[0, max(1, num_keys - 2) :] = 0
    return [steps, memory]


def export(model: keras.Model, file_format: str, folder: Path) -> Run:
    """Export a model, and return a function that runs what was exported."""
    return globals()[f"_export_{file_format}"](model, folder)


def _export_onnx(model: keras.Model, folder: Path) -> Run:
    runtime = pytest.importorskip("onnxruntime")
    model.export(str(folder / "model.onnx"), format="onnx", verbose=False)
    session = runtime.InferenceSession(folder / "model.onnx")
    names = [tensor.name for tensor in session.get_inputs()]
    # An input that no operation reads is left out.
    given = [next(i for i, name in enumerate(("steps", "memory")) if name in actual) for actual in names]
    return lambda *arrays: session.run(None, {name: arrays[i] for name, i in zip(names, given, strict=True)})


def _export_torch(model: keras.Model, folder: Path) -> Run:
    import torch

    # As `model.export(format="torch")` does, but for a sample of T != S.
    dynamic = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
    arrays = [torch.tensor(array) for array in make_arrays(3, 4, 5)]
    module = torch.export.export(model, (arrays,), dynamic_shapes=[([dynamic, dynamic],)], strict=False).module()
    return lambda *arrays: keras.tree.flatten(module([torch.tensor(array) for array in arrays]))


def _export_tf_saved_model(model: keras.Model, folder: Path) -> Run:
    import tensorflow as tf

    model.export(str(folder / "model"), format="tf_saved_model", verbose=False)
    loaded = tf.saved_model.load(str(folder / "model"))
    return lambda *arrays: keras.tree.flatten(loaded.serve(list(arrays)))


def _export_stablehlo(model: keras.Model, folder: Path) -> Run:
    import jax
    from jax import export as jax_export

    scope = jax_export.SymbolicScope()
    inputs = [
        jax.ShapeDtypeStruct(jax_export.symbolic_shape(f"b, {length}, {WIDTH}", scope=scope), "float32")
        for length in ("t", "s")
    ]
    exported = jax_export.export(jax.jit(lambda *arrays: model(list(arrays), training=False)))(*inputs)
    return lambda *arrays: keras.tree.flatten(exported.call(*arrays))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("file_format", FORMATS[BACKEND])
@pytest.mark.parametrize("name", MODELS if runs_everything() else ["several"])
def test_exported_models_equal_their_models_at_other_lengths(name: str, file_format: str, tmp_path: Path) -> None:
    if name in LIMITS[BACKEND, file_format]:
        pytest.skip("not exported")
    # Keras exports no model that was never called.
    expected = [compute_expected(name, shape) for shape in SHAPES]
    run = export(make_model(name), file_format, tmp_path)
    for shape, values in zip(SHAPES, expected, strict=True):
        for actual, value in zip(run(*make_arrays(*shape)), values, strict=True):
            np.testing.assert_allclose(ops.convert_to_numpy(actual), value, atol=2e-5, err_msg=f"{shape}")
