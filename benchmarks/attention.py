"""Attention: limelight's function and layer, those of Keras and of the backend, and a dense mask.

`limelight` and `keras` are bare functions of queries, keys and values; `limelight layer` and `keras layer` are the two
`MultiHeadAttention`, projections included. limelight takes (B, N, T, H), Keras and JAX (B, T, N, H).
"""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
from definitions import BACKENDS, Benchmark, Workload

VERBS = {
    "jax": ("limelight", "keras", "jax.nn"),
    "tensorflow": ("limelight", "keras"),
    "torch": ("limelight", "keras", "SDPA"),
}


def verbs() -> dict[str, Any]:
    """Return the variants of the bare functions, compared with `scaled_dot_product_attention` on PyTorch, else with Keras."""
    return {
        "variants": VERBS,
        "compared": {name: (("limelight", "SDPA" if name == "torch" else "keras"),) for name in BACKENDS},
    }


def layers() -> dict[str, Any]:
    """Return the variants of the layers."""
    variants = dict.fromkeys(BACKENDS, ("limelight layer", "keras layer"))
    return {"variants": variants, "compared": dict.fromkeys(BACKENDS, (("limelight layer", "keras layer"),))}


def short() -> dict[str, Any]:
    """Return the variants of short inputs, functions and layers."""
    variants = {backend: (*names, "limelight layer", "keras layer") for backend, names in VERBS.items()}
    pairs = (("limelight", "keras"), ("limelight layer", "keras layer"))
    compared = {**dict.fromkeys(BACKENDS, pairs), "torch": (("limelight", "SDPA"), *pairs)}
    return {"variants": variants, "compared": compared}


def window() -> dict[str, Any]:
    """Return the variants of a sliding window."""
    variants = dict.fromkeys(BACKENDS, ("limelight", "limelight, dense mask"))
    variants["torch"] += ("SDPA",)
    return {"variants": variants, "compared": dict.fromkeys(BACKENDS, (("limelight", "limelight, dense mask"),))}


def benchmark(name: str, title: str, parts: dict[str, Any], *, quick: bool = True, **settings: Any) -> Benchmark:
    """Return a benchmark of this module with the common settings."""
    common = {"batch": 1, "heads": 8, "size": 64, "mask": None, "training": False, "dtype": "float32"}
    fresh = settings["length"] <= 512
    return Benchmark(name, title, "attention", settings=common | settings, quick=quick, fresh=fresh, **parts)


BENCHMARKS = [
    benchmark("product", "product of two matrices", {"variants": dict.fromkeys(BACKENDS, ("matmul",))}, length=2048),
    benchmark("full", "8192 forward", verbs(), length=8192),
    benchmark("causal", "8192 forward causal", verbs(), length=8192, mask="causal"),
    benchmark("train", "4096 forward + backward", verbs(), length=4096, training=True),
    benchmark("train-causal", "4096 forward + backward causal", verbs(), length=4096, mask="causal", training=True),
    benchmark("layer", "4096 forward", layers(), length=4096),
    benchmark("layer-train", "4096 forward + backward", layers(), length=4096, training=True),
    benchmark("window", "16384 forward window 256", window(), length=16384, mask="window"),
    benchmark("short", "512 x 4 forward", short(), length=512, batch=4),
    benchmark("short-causal", "512 x 4 forward causal", short(), length=512, batch=4, mask="causal"),
    benchmark("short-train", "512 x 4 forward + backward", short(), length=512, batch=4, training=True),
    benchmark("shorter", "64 x 32 forward", short(), length=64, batch=32),
    benchmark("shorter-train", "64 x 32 forward + backward", short(), length=64, batch=32, training=True),
    benchmark("middle", "2048 x 4 forward", verbs(), quick=False, length=2048, batch=4),
    benchmark("middle-train", "2048 x 4 forward + backward", verbs(), quick=False, length=2048, batch=4, training=True),
    benchmark("half", "8192 forward bfloat16", verbs(), quick=False, length=8192, dtype="bfloat16"),
]


def build(benchmark: Benchmark, variant: str) -> Workload:
    """Compile a variant of a benchmark."""
    import compiled

    settings = benchmark.settings
    length, batch, heads, size = (settings[name] for name in ("length", "batch", "heads", "size"))
    random = np.random.default_rng(7)
    if variant == "matmul":
        from keras import ops

        arrays = [random.normal(size=(length, length)).astype("float32") for _ in range(2)]
        return Workload(compiled.forward(ops.matmul, *arrays), 2 * length**3)
    if variant.endswith("layer"):
        x = random.normal(size=(batch, length, heads * size)).astype("float32")
        layer, variables = make_layer(variant, settings, x)
        run = (compiled.backward if settings["training"] else compiled.forward)(layer, x, *variables)
        return Workload(run)
    inputs = [random.normal(size=(batch, heads, length, size)).astype("float32") for _ in range(3)]
    arrays = [np.moveaxis(array, 1, 2) for array in inputs] if variant in ("keras", "jax.nn") else inputs
    arrays = [np.ascontiguousarray(array) for array in arrays]
    function = cast_to(settings["dtype"], make_function(variant, settings))
    run = (compiled.backward if settings["training"] else compiled.forward)(function, *arrays)
    pairs = batch * heads * sum(int(permitted(settings, row).sum()) for row in range(length))
    operations = pairs * size * 2 * (7 if settings["training"] else 2)
    error = (
        None if settings["training"] else functools.partial(deviation, settings, inputs, variant in ("keras", "jax.nn"))
    )
    return Workload(run, operations, error)


def make_function(variant: str, settings: dict[str, Any]) -> Callable[..., Any]:
    """Return attention as a function of queries, keys and values."""
    import keras

    import limelight as ll

    causal, length = settings["mask"] == "causal", settings["length"]
    masks = {None: None, "causal": ll.masks.Causal(), "window": ll.masks.SlidingWindow(256, 256)}
    if variant == "limelight":
        return lambda *arrays: ll.attend(*arrays, mask=masks[settings["mask"]])
    if variant == "keras":
        return lambda *arrays: keras.ops.dot_product_attention(*arrays, is_causal=causal)
    if variant == "jax.nn":
        import jax

        return lambda *arrays: jax.nn.dot_product_attention(*arrays, is_causal=causal)
    steps = np.arange(length)
    dense = abs(steps[:, None] - steps) <= 256 if settings["mask"] == "window" else None
    if variant == "SDPA":
        import torch

        mask = None if dense is None else torch.from_numpy(dense)
        attention = torch.nn.functional.scaled_dot_product_attention
        return lambda *arrays: attention(*arrays, attn_mask=mask, is_causal=causal)
    mask = keras.ops.convert_to_tensor(dense)
    return lambda *arrays: ll.attend(*arrays, mask=mask)


def make_layer(variant: str, settings: dict[str, Any], x: np.ndarray) -> tuple[Callable[..., Any], list[np.ndarray]]:
    """Return a layer as a function of its input and variables, and their values."""
    import keras

    import limelight as ll

    kind = ll.layers.MultiHeadAttention if variant.startswith("limelight") else keras.layers.MultiHeadAttention
    layer = kind(settings["heads"], settings["size"])
    causal = settings["mask"] == "causal"
    layer.build(x.shape, x.shape)
    variables = layer.trainable_variables
    others = [variable.value for variable in layer.non_trainable_variables]

    def call(x: Any, *values: Any) -> Any:
        return layer.stateless_call(values, others, x, x, use_causal_mask=causal)[0]

    return call, [keras.ops.convert_to_numpy(variable.value) for variable in variables]


def cast_to(dtype: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function in another dtype, with casts of the inputs."""
    if dtype == "float32":
        return function
    from keras import ops

    return lambda *arrays: function(*(ops.cast(tensor, dtype) for tensor in arrays))


def permitted(settings: dict[str, Any], row: int) -> np.ndarray:
    """Return the keys that a query may attend to, bool (S,)."""
    distance = np.arange(settings["length"]) - row
    masks = {None: distance == distance, "causal": distance <= 0, "window": abs(distance) <= 256}
    return masks[settings["mask"]]


def deviation(settings: dict[str, Any], inputs: list[np.ndarray], heads_last: bool, output: Any) -> float:
    """Return the largest difference from float64 over a sample of rows of one head."""
    import keras

    output = keras.ops.convert_to_numpy(keras.ops.cast(output, "float32"))
    output = np.moveaxis(output, 2, 1) if heads_last else output
    query, key, value = (array[-1, -1].astype("float64") for array in inputs)
    worst = 0.0
    for row in np.linspace(0, settings["length"] - 1, 17).astype(int):
        scores = np.where(permitted(settings, row), key @ query[row] / query.shape[-1] ** 0.5, -np.inf)
        weights = np.exp(scores - scores.max())
        expected = weights @ value / weights.sum()
        worst = max(worst, float(abs(output[-1, -1, row] - expected).max()))
    return worst
