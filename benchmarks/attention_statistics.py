"""Statistics of attention: `limelight.attention_statistics` beside asking Keras's layer for its weights and reducing them.

Both give the output too. `keras` reduces to all that a survey holds; `keras, less` to entropy, the largest 16 weights and the
mass that each key receives.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from works import BACKENDS, Subject, Work

TOP, CELLS = 16, 64


def beside() -> dict[str, Any]:
    """Return the ways at a length where Keras's weights fit into memory."""
    ways = dict.fromkeys(BACKENDS, ("limelight", "keras", "keras, less"))
    compared = dict.fromkeys(BACKENDS, (("limelight", "keras"), ("limelight", "keras, less")))
    return {"ways": ways, "compared": compared}


def alone() -> dict[str, Any]:
    """Return the only way at a length where they do not."""
    return {
        "ways": dict.fromkeys(BACKENDS, ("limelight",)),
        "compared": dict.fromkeys(BACKENDS, (("limelight", None),)),
    }


WORKS = [
    Work(
        "statistics",
        "8192 statistics",
        "attention_statistics",
        settings={"length": 8192, "heads": 8, "size": 64},
        **beside(),
    ),
    Work(
        "statistics-short",
        "4096 statistics",
        "attention_statistics",
        settings={"length": 4096, "heads": 8, "size": 64},
        quick=False,
        **beside(),
    ),
    Work(
        "statistics-long",
        "32768 statistics",
        "attention_statistics",
        settings={"length": 32768, "heads": 8, "size": 64},
        quick=False,
        **alone(),
    ),
    Work(
        "statistics-longest",
        "131072 statistics one head",
        "attention_statistics",
        settings={"length": 131072, "heads": 1, "size": 64},
        rounds=1,
        **alone(),
    ),
]


def build(work: Work, way: str) -> Subject:
    """A way of a work, compiled."""
    import compiled
    import keras  # noqa: F401  A part of what is there before anything runs.

    import limelight as ll

    # The parts of both that load when first used, once: PyTorch compiles nothing, so that nothing else would load them.
    ll.attention_statistics(*np.zeros((3, 1, 1, 8, 4), "float32"), top_k=1, num_blocks=1)
    length, heads, size = (work.settings[name] for name in ("length", "heads", "size"))
    random = np.random.default_rng(7)
    inputs = [random.normal(size=(1, heads, length, size)).astype("float32") for _ in range(3)]
    if way == "limelight":
        given, function = inputs, surveyed
    else:
        given = [np.ascontiguousarray(np.moveaxis(array, 1, 2)) for array in inputs]
        function = reduced(heads, size, given[0].shape, less=way.endswith("less"))
    pairs = heads * length * length
    return Subject(
        compiled.forward(function, *given), pairs * size * 4, lambda found: deviation(inputs, found["entropy"])
    )


def surveyed(*given: Any) -> dict[str, Any]:
    """The survey of queries, keys and values, with the output."""
    import limelight as ll

    found = ll.attention_statistics(*given, top_k=TOP, num_blocks=CELLS)._asdict()
    return {name: one for name, one in found.items() if "edges" not in name}


def reduced(heads: int, size: int, shape: tuple, *, less: bool) -> Callable[..., dict[str, Any]]:
    """The weights of Keras's layer, reduced to what a survey holds."""
    import keras
    from keras import ops

    layer = keras.layers.MultiHeadAttention(heads, size)
    layer.build((*shape[:2], heads * size), (*shape[:2], heads * size))

    def run(query: Any, key: Any, value: Any) -> dict[str, Any]:
        output, weights = layer._compute_attention(query, key, value, return_attention_scores=True)
        found = {
            "output": output,
            "entropy": -ops.sum(weights * ops.log(ops.maximum(weights, 1e-37)), axis=-1),
            "received": ops.sum(weights, axis=-2),
        }
        found["top_weights"], found["top_keys"] = ops.top_k(weights, TOP)
        if less:
            return found
        steps = ops.arange(shape[1], dtype="float32")
        cell = shape[1] // CELLS
        blocks = ops.reshape(weights, (*tuple(weights.shape)[:2], CELLS, cell, CELLS, cell))
        return {
            **found,
            "distance": ops.sum(weights * ops.abs(steps[:, None] - steps), axis=-1),
            "mass": ops.sum(weights, axis=-1),
            "block_sums": ops.sum(blocks, axis=(3, 5)),
            "block_max": ops.max(blocks, axis=(3, 5)),
        }

    return run


def deviation(inputs: list[np.ndarray], entropy: Any) -> float:
    """The largest difference of the entropy from float64, over a sample of rows of the last head."""
    import keras

    entropy = keras.ops.convert_to_numpy(entropy)
    query, key = (array[-1, -1].astype("float64") for array in inputs[:2])
    worst = 0.0
    for row in np.linspace(0, len(query) - 1, 17).astype(int):
        scores = key @ query[row] / query.shape[-1] ** 0.5
        raised = np.exp(scores - scores.max())
        weights = raised / raised.sum()
        worst = max(worst, float(abs(entropy[-1, -1, row] + (weights * np.log(weights)).sum())))
    return worst
