"""The faults that `run.py` plants: each a kind of error that once was, or easily could be, made."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Fault:
    """One change of the source that the tests must catch.

    Args:
        title: What goes wrong.
        module: The module, below src/limelight.
        before: The text to replace; it stands there once.
        after: What replaces it.
        tests: Arguments for pytest: a part of what `make test` runs.
        backends: The backends to run them on; catching the fault on one is enough.
    """

    title: str
    module: str
    before: str
    after: str
    tests: tuple[str, ...]
    backends: tuple[str, ...] = ("torch",)


FAULTS = [
    Fault(
        "TensorFlow leaves the mask off one column too many",
        "engine/tensorflow/grid.py",
        "self.end = static_min(static_max(last - block.columns.start, self.begin), self.length)",
        "self.end = static_min(static_max(last - block.columns.start, self.begin) + 1, self.length)",
        ("tests/engine/test_implementations.py",),
        ("tensorflow",),
    ),
    Fault(
        "JAX drops the gradient of biases and learned scores in its online softmax",
        "engine/jax/online_softmax.py",
        "                    jax.tree.map(jnp.add, grad_floats, more_floats),\n                )",
        "                    grad_floats,\n                )",
        ("tests/engine/test_implementations.py",),
        ("jax",),
    ),
    Fault(
        "PyTorch forgets the scale of grouped heads",
        "engine/torch/fused.py",
        "is_causal=causal, scale=scale)\n    return output.reshape",
        "is_causal=causal)\n    return output.reshape",
        ("tests/engine/test_implementations.py", "tests/layers/test_multi_head.py"),
    ),
    Fault(
        "Statistics read padding",
        "engine/torch/statistics.py",
        "logits[..., first:last].masked_fill_(~permitted, MASK_VALUE)",
        "pass",
        ("tests/engine/test_statistics.py",),
    ),
    Fault(
        "The backward pass drops other weights than the forward pass",
        "engine/jax/online_softmax.py",
        "                    factors = self.dropout_mask(seed, corner)",
        "                    factors = self.dropout_mask(seed + 1, corner)",
        ("tests/engine/test_transformations.py",),
        ("jax",),
    ),
    Fault(
        "Rows that two blocks share count twice in TensorFlow's gradient",
        "engine/tensorflow/grid.py",
        "        if not self.has_overlap:\n            return rows\n        row = ",
        "        return rows\n        row = ",
        ("tests/engine/test_implementations.py",),
        ("tensorflow",),
    ),
    Fault(
        "Causal attention is aligned at the start, where it must be at the end",
        "masks/positional.py",
        "        return block.key_positions() <= block.query_positions(self.align)\n",
        '        return block.key_positions() <= block.query_positions("start")\n',
        ("tests/masks", "tests/contracts/test_contract.py"),
    ),
    Fault(
        "A row that may attend to nothing gets uniform weights",
        "normalizers/exponential.py",
        "        return zero_masked(softmax(scores), mask)\n",
        "        return softmax(scores)\n",
        ("tests/contracts/test_contract.py",),
    ),
    Fault(
        "A full cache overwrites one slot too early",
        "layers/kv_cache.py",
        '        positions = last - ops.mod(last - ops.arange(size, dtype="int32"), size)  # (B, L)',
        '        positions = last - ops.mod(last - ops.arange(size, dtype="int32"), size - 1)  # (B, L)',
        ("tests/layers/test_kv_cache.py", "tests/layers/test_decoding.py"),
    ),
    Fault(
        "A captured map lets each query see one key more than the layer did",
        "maps/stored_mask.py",
        "                parts.append(distance <= self.right)",
        "                parts.append(distance <= self.right + 1)",
        ("tests/maps", "tests/inspection/test_limelight_layers.py"),
    ),
    Fault(
        "Corrected p values may fall where the raw ones rise",
        "evaluate/comparison.py",
        "np.minimum(np.maximum.accumulate(scaled), 1.0)",
        "np.minimum(scaled, 1.0)",
        ("tests/evaluate/test_comparison.py", "-m", "backend_free"),
        ("jax",),
    ),
    Fault(
        "Texts from data reach the page as markup",
        "report/page.py",
        "autoescape=True",
        "autoescape=False",
        ("tests/report/test_report_page.py", "-m", "backend_free"),
        ("jax",),
    ),
]
