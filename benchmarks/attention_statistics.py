"""Statistics of attention: `limelight.attention_statistics`, and the weights of Keras's layer reduced to the same statistics.

Both return the output too. `keras` reduces to all fields of `AttentionStatistics`; `keras, less` to entropy, the largest 16
weights and the weight that each key receives.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from definitions import BACKENDS, Benchmark, Workload

TOP_K, NUM_BLOCKS = 16, 64


def compared_with_keras() -> dict[str, Any]:
    """Return the variants for a length at which Keras's weights fit into memory."""
    variants = dict.fromkeys(BACKENDS, ("limelight", "keras", "keras, less"))
    compared = dict.fromkeys(BACKENDS, (("limelight", "keras"), ("limelight", "keras, less")))
    return {"variants": variants, "compared": compared}


def limelight_alone() -> dict[str, Any]:
    """Return the only variant for a length at which they do not."""
    return {
        "variants": dict.fromkeys(BACKENDS, ("limelight",)),
        "compared": dict.fromkeys(BACKENDS, (("limelight", None),)),
    }


BENCHMARKS = [
    Benchmark(
        "statistics",
        "8192 statistics",
        "attention_statistics",
        settings={"length": 8192, "heads": 8, "size": 64},
        **compared_with_keras(),
    ),
    Benchmark(
        "statistics-short",
        "4096 statistics",
        "attention_statistics",
        settings={"length": 4096, "heads": 8, "size": 64},
        quick=False,
        **compared_with_keras(),
    ),
    Benchmark(
        "statistics-long",
        "32768 statistics",
        "attention_statistics",
        settings={"length": 32768, "heads": 8, "size": 64},
        quick=False,
        **limelight_alone(),
    ),
    Benchmark(
        "statistics-longest",
        "131072 statistics one head",
        "attention_statistics",
        settings={"length": 131072, "heads": 1, "size": 64},
        rounds=1,
        **limelight_alone(),
    ),
]


def build(benchmark: Benchmark, variant: str) -> Workload:
    """Compile a variant of a benchmark."""
    import compiled
    import keras  # noqa: F401  Its memory must not count.

    import limelight as ll

    # Load the modules that are imported at first use: PyTorch compiles nothing that would load them before the measurement.
    ll.attention_statistics(*np.zeros((3, 1, 1, 8, 4), "float32"), top_k=1, num_blocks=1)
    length, heads, size = (benchmark.settings[name] for name in ("length", "heads", "size"))
    random = np.random.default_rng(7)
    inputs = [random.normal(size=(1, heads, length, size)).astype("float32") for _ in range(3)]
    if variant == "limelight":
        arrays, function = inputs, compute_statistics
    else:
        arrays = [np.ascontiguousarray(np.moveaxis(array, 1, 2)) for array in inputs]
        function = reduced_weights(heads, size, arrays[0].shape, less=variant.endswith("less"))
    pairs = heads * length * length
    return Workload(
        compiled.forward(function, *arrays), pairs * size * 4, lambda result: deviation(inputs, result["entropy"])
    )


def compute_statistics(*arrays: Any) -> dict[str, Any]:
    """Compute the statistics of queries, keys and values, with the output."""
    import limelight as ll

    statistics = ll.attention_statistics(*arrays, top_k=TOP_K, num_blocks=NUM_BLOCKS)._asdict()
    return {name: field for name, field in statistics.items() if "edges" not in name}


def reduced_weights(heads: int, size: int, shape: tuple, *, less: bool) -> Callable[..., dict[str, Any]]:
    """Return a function that reduces the weights of Keras's layer to statistics."""
    import keras
    from keras import ops

    layer = keras.layers.MultiHeadAttention(heads, size)
    layer.build((*shape[:2], heads * size), (*shape[:2], heads * size))

    def run(query: Any, key: Any, value: Any) -> dict[str, Any]:
        output, weights = layer._compute_attention(query, key, value, return_attention_scores=True)
        statistics = {
            "output": output,
            "entropy": -ops.sum(weights * ops.log(ops.maximum(weights, 1e-37)), axis=-1),
            "received": ops.sum(weights, axis=-2),
        }
        statistics["top_weights"], statistics["top_keys"] = ops.top_k(weights, TOP_K)
        if less:
            return statistics
        steps = ops.arange(shape[1], dtype="float32")
        size_of_block = shape[1] // NUM_BLOCKS
        blocks = ops.reshape(weights, (*tuple(weights.shape)[:2], NUM_BLOCKS, size_of_block, NUM_BLOCKS, size_of_block))
        return {
            **statistics,
            "distance": ops.sum(weights * ops.abs(steps[:, None] - steps), axis=-1),
            "mass": ops.sum(weights, axis=-1),
            "block_sums": ops.sum(blocks, axis=(3, 5)),
            "block_max": ops.max(blocks, axis=(3, 5)),
        }

    return run


def deviation(inputs: list[np.ndarray], entropy: Any) -> float:
    """Return the largest difference of the entropy from float64, over a sample of rows of the last head."""
    import keras

    entropy = keras.ops.convert_to_numpy(entropy)
    query, key = (array[-1, -1].astype("float64") for array in inputs[:2])
    worst = 0.0
    for row in np.linspace(0, len(query) - 1, 17).astype(int):
        scores = key @ query[row] / query.shape[-1] ** 0.5
        unnormalized = np.exp(scores - scores.max())
        weights = unnormalized / unnormalized.sum()
        worst = max(worst, float(abs(entropy[-1, -1, row] + (weights * np.log(weights)).sum())))
    return worst
