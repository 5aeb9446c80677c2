"""The output and the weights of a question, by the path that suits it."""

from typing import Any

import keras

from limelight.core.random import sample_seed
from limelight.engine import dense, implementations, placement, thresholds
from limelight.engine.call import AttentionCall


def output(call: AttentionCall, value: Any, *, dropout: float = 0.0, seed: Any = None) -> Any:
    """The output (B, N, T, V) of a question for values (B, K, S, V), in the dtype of the values."""
    call = implementations.ready(call)
    implementation = implementations.choose(call, value, dropout)
    number = sample_seed(seed) if dropout else None
    if implementation.name == "dense":
        return dense.output(call, value, dropout=dropout, seed=number)
    return BACKENDS[keras.backend.backend()](implementation, call, value, dropout, number)


def _jax(
    implementation: implementations.Implementation, call: AttentionCall, value: Any, dropout: float, seed: Any
) -> Any:
    from limelight.engine.jax import blockwise, compiled, fused, online_softmax

    now = thresholds.current(call.query)
    if implementation.name == "fused":
        # Off a GPU the same function has a formula, by which this path is tested.
        kernel = "cudnn" if placement.accelerated(call.query) else "xla"
        return compiled.run(fused.output, call, value, size=now.scores_per_block, implementation=kernel)
    if implementation.name == "online_softmax":
        return compiled.run(
            online_softmax.output, call, value, seed, rows=now.rows, columns=now.columns, dropout=dropout
        )
    return compiled.run(blockwise.output, call, value, seed, size=now.scores_per_block, dropout=dropout)


def _torch(
    implementation: implementations.Implementation, call: AttentionCall, value: Any, dropout: float, seed: Any
) -> Any:
    from limelight.engine.torch import blockwise, fused

    if implementation.name == "fused":
        return fused.output(call, value)
    size = thresholds.current(call.query).scores_per_block
    return blockwise.output(call, value, size=size, dropout=dropout, seed=seed)


def _tensorflow(
    implementation: implementations.Implementation, call: AttentionCall, value: Any, dropout: float, seed: Any
) -> Any:
    from limelight.engine.tensorflow import blockwise, lengths

    now = thresholds.current(call.query)
    unknown = None in (*call.query.shape, *call.key.shape)
    # XLA cannot turn a loop over blocks into code before it knows how many there are. Outside it the running model could choose
    # by `tf.cond`, but whoever observes the layer would not see its tensors in there.
    if unknown and (lengths.under_xla() or (implementations.size(call) is None and thresholds.forced() is None)):
        return dense.output(call, value, dropout=dropout, seed=seed)
    # Each of its operations starts threads of its own, which pays for larger blocks better.
    return blockwise.output(call.prepared(), value, size=2 * now.scores_per_block, dropout=dropout, seed=seed)


BACKENDS = {"jax": _jax, "torch": _torch, "tensorflow": _tensorflow}
