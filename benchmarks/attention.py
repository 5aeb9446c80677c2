"""Attention itself: the verb and the layer beside Keras's, the backend's own, and a dense mask.

`limelight` and `keras` are bare functions of queries, keys and values; `limelight layer` and `keras layer` are the two
`MultiHeadAttention`, projections included. Each has its heads where it wants them: limelight (B, N, T, H), Keras (B, T, N, H).
"""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
from works import BACKENDS, Subject, Work

VERBS = {
    "jax": ("limelight", "keras", "jax.nn"),
    "tensorflow": ("limelight", "keras"),
    "torch": ("limelight", "keras", "SDPA"),
}


def verbs() -> dict[str, Any]:
    """Return the ways of the bare functions, compared with PyTorch's own function there and with Keras's elsewhere."""
    return {
        "ways": VERBS,
        "compared": {name: (("limelight", "SDPA" if name == "torch" else "keras"),) for name in BACKENDS},
    }


def layers() -> dict[str, Any]:
    """Return the ways of the layers."""
    ways = dict.fromkeys(BACKENDS, ("limelight layer", "keras layer"))
    return {"ways": ways, "compared": dict.fromkeys(BACKENDS, (("limelight layer", "keras layer"),))}


def short() -> dict[str, Any]:
    """Return the ways of short inputs, functions and layers."""
    ways = {backend: (*names, "limelight layer", "keras layer") for backend, names in VERBS.items()}
    pairs = (("limelight", "keras"), ("limelight layer", "keras layer"))
    compared = {**dict.fromkeys(BACKENDS, pairs), "torch": (("limelight", "SDPA"), *pairs)}
    return {"ways": ways, "compared": compared}


def window() -> dict[str, Any]:
    """Return the ways of a sliding window."""
    ways = dict.fromkeys(BACKENDS, ("limelight", "limelight, dense mask"))
    ways["torch"] += ("SDPA",)
    return {"ways": ways, "compared": dict.fromkeys(BACKENDS, (("limelight", "limelight, dense mask"),))}


def work(name: str, title: str, parts: dict[str, Any], *, quick: bool = True, **settings: Any) -> Work:
    """Return a work of this module with the common settings."""
    common = {"batch": 1, "heads": 8, "size": 64, "mask": None, "training": False, "dtype": "float32"}
    fresh = settings["length"] <= 512
    return Work(name, title, "attention", settings=common | settings, quick=quick, fresh=fresh, **parts)


WORKS = [
    work("product", "product of two matrices", {"ways": dict.fromkeys(BACKENDS, ("matmul",))}, length=2048),
    work("full", "8192 forward", verbs(), length=8192),
    work("causal", "8192 forward causal", verbs(), length=8192, mask="causal"),
    work("train", "4096 forward + backward", verbs(), length=4096, training=True),
    work("train-causal", "4096 forward + backward causal", verbs(), length=4096, mask="causal", training=True),
    work("layer", "4096 forward", layers(), length=4096),
    work("layer-train", "4096 forward + backward", layers(), length=4096, training=True),
    work("window", "16384 forward window 256", window(), length=16384, mask="window"),
    work("short", "512 x 4 forward", short(), length=512, batch=4),
    work("short-causal", "512 x 4 forward causal", short(), length=512, batch=4, mask="causal"),
    work("short-train", "512 x 4 forward + backward", short(), length=512, batch=4, training=True),
    work("shorter", "64 x 32 forward", short(), length=64, batch=32),
    work("shorter-train", "64 x 32 forward + backward", short(), length=64, batch=32, training=True),
    work("middle", "2048 x 4 forward", verbs(), quick=False, length=2048, batch=4),
    work("middle-train", "2048 x 4 forward + backward", verbs(), quick=False, length=2048, batch=4, training=True),
    work("half", "8192 forward bfloat16", verbs(), quick=False, length=8192, dtype="bfloat16"),
]


def build(work: Work, way: str) -> Subject:
    """Compile a way of a work."""
    import compiled

    settings = work.settings
    length, batch, heads, size = (settings[name] for name in ("length", "batch", "heads", "size"))
    random = np.random.default_rng(7)
    if way == "matmul":
        from keras import ops

        given = [random.normal(size=(length, length)).astype("float32") for _ in range(2)]
        return Subject(compiled.forward(ops.matmul, *given), 2 * length**3)
    if way.endswith("layer"):
        x = random.normal(size=(batch, length, heads * size)).astype("float32")
        layer, variables = layer_of(way, settings, x)
        run = (compiled.backward if settings["training"] else compiled.forward)(layer, x, *variables)
        return Subject(run)
    inputs = [random.normal(size=(batch, heads, length, size)).astype("float32") for _ in range(3)]
    given = [np.moveaxis(array, 1, 2) for array in inputs] if way in ("keras", "jax.nn") else inputs
    given = [np.ascontiguousarray(array) for array in given]
    function = cast_to(settings["dtype"], verb(way, settings))
    run = (compiled.backward if settings["training"] else compiled.forward)(function, *given)
    pairs = batch * heads * sum(int(permitted(settings, row).sum()) for row in range(length))
    operations = pairs * size * 2 * (7 if settings["training"] else 2)
    error = None if settings["training"] else functools.partial(deviation, settings, inputs, way in ("keras", "jax.nn"))
    return Subject(run, operations, error)


def verb(way: str, settings: dict[str, Any]) -> Callable[..., Any]:
    """Return a function of queries, keys and values."""
    import keras

    import limelight as ll

    causal, length = settings["mask"] == "causal", settings["length"]
    masks = {None: None, "causal": ll.masks.Causal(), "window": ll.masks.SlidingWindow(256, 256)}
    if way == "limelight":
        return lambda *given: ll.attend(*given, mask=masks[settings["mask"]])
    if way == "keras":
        return lambda *given: keras.ops.dot_product_attention(*given, is_causal=causal)
    if way == "jax.nn":
        import jax

        return lambda *given: jax.nn.dot_product_attention(*given, is_causal=causal)
    steps = np.arange(length)
    dense = abs(steps[:, None] - steps) <= 256 if settings["mask"] == "window" else None
    if way == "SDPA":
        import torch

        mask = None if dense is None else torch.from_numpy(dense)
        attention = torch.nn.functional.scaled_dot_product_attention
        return lambda *given: attention(*given, attn_mask=mask, is_causal=causal)
    mask = keras.ops.convert_to_tensor(dense)
    return lambda *given: ll.attend(*given, mask=mask)


def layer_of(way: str, settings: dict[str, Any], x: np.ndarray) -> tuple[Callable[..., Any], list[np.ndarray]]:
    """Return a layer as a function of its input and variables, and their values."""
    import keras

    import limelight as ll

    kind = ll.layers.MultiHeadAttention if way.startswith("limelight") else keras.layers.MultiHeadAttention
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

    return lambda *given: function(*(ops.cast(tensor, dtype) for tensor in given))


def permitted(settings: dict[str, Any], row: int) -> np.ndarray:
    """Which keys a query may attend to, bool (S,)."""
    distance = np.arange(settings["length"]) - row
    found = {None: distance == distance, "causal": distance <= 0, "window": abs(distance) <= 256}
    return found[settings["mask"]]


def deviation(settings: dict[str, Any], inputs: list[np.ndarray], swapped: bool, output: Any) -> float:
    """Return the largest difference from float64 over a sample of rows of one head."""
    import keras

    output = keras.ops.convert_to_numpy(keras.ops.cast(output, "float32"))
    output = np.moveaxis(output, 2, 1) if swapped else output
    query, key, value = (array[-1, -1].astype("float64") for array in inputs)
    worst = 0.0
    for row in np.linspace(0, settings["length"] - 1, 17).astype(int):
        scores = np.where(permitted(settings, row), key @ query[row] / query.shape[-1] ** 0.5, -np.inf)
        weights = np.exp(scores - scores.max())
        expected = weights @ value / weights.sum()
        worst = max(worst, float(abs(output[-1, -1, row] - expected).max()))
    return worst
