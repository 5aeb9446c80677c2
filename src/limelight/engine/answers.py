"""The output and the weights of a question, by the path that suits it."""

from typing import Any

import keras

from limelight.engine import devices, limits, paths, plain
from limelight.noise import drawn
from limelight.question import Question


def output(question: Question, value: Any, *, dropout: float = 0.0, seed: Any = None) -> Any:
    """The output (B, N, T, V) of a question for values (B, K, S, V), in the dtype of the values."""
    question = paths.ready(question)
    path = paths.choose(question, value, dropout)
    number = drawn(seed) if dropout else None
    if path.name == "plain":
        return plain.output(question, value, dropout=dropout, seed=number)
    return BACKENDS[keras.backend.backend()](path, question, value, dropout, number)


def _jax(path: paths.Path, question: Question, value: Any, dropout: float, seed: Any) -> Any:
    from limelight.engine import jax_compiled, jax_fused, jax_rows, jax_running

    now = limits.current(question.query)
    if path.name == "fused":
        # Off a GPU the same function has a formula, by which this path is tested.
        implementation = "cudnn" if devices.accelerated(question.query) else "xla"
        return jax_compiled.run(jax_fused.output, question, value, size=now.block, implementation=implementation)
    if path.name == "running":
        return jax_compiled.run(
            jax_running.output, question, value, seed, rows=now.rows, columns=now.columns, dropout=dropout
        )
    return jax_compiled.run(jax_rows.output, question, value, seed, size=now.block, dropout=dropout)


def _torch(path: paths.Path, question: Question, value: Any, dropout: float, seed: Any) -> Any:
    from limelight.engine import torch_fused, torch_rows

    if path.name == "fused":
        return torch_fused.output(question, value)
    size = limits.current(question.query).block
    return torch_rows.output(question, value, size=size, dropout=dropout, seed=seed)


def _tensorflow(path: paths.Path, question: Question, value: Any, dropout: float, seed: Any) -> Any:
    from limelight.engine import tensorflow_lengths, tensorflow_rows

    now = limits.current(question.query)
    unknown = None in (*question.query.shape, *question.key.shape)
    # XLA cannot turn a loop over blocks into code before it knows how many there are. Outside it the running model could choose
    # by `tf.cond`, but whoever observes the layer would not see its tensors in there.
    if unknown and (tensorflow_lengths.under_xla() or (paths.size(question) is None and limits.forced() is None)):
        return plain.output(question, value, dropout=dropout, seed=seed)
    # Each of its operations starts threads of its own, which pays for larger blocks better.
    return tensorflow_rows.output(question.prepared(), value, size=2 * now.block, dropout=dropout, seed=seed)


BACKENDS = {"jax": _jax, "torch": _torch, "tensorflow": _tensorflow}
