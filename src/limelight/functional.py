"""The verbs: `attend`, `attention_weights`, `attention_statistics` and `explain_implementation`. Pure functions of tensors."""

import contextlib
import contextvars
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from keras import ops

from limelight import normalizers
from limelight._attention_statistics import AttentionStatistics
from limelight.core.precision import accumulation_dtype
from limelight.core.shapes import shape_of
from limelight.engine import backend, dense, implementations
from limelight.engine.call import AttentionCall, flatten_leading, make_call
from limelight.engine.implementations import Implementation
from limelight.engine.statistics import compute_statistics


def attend(
    query: Any,
    key: Any,
    value: Any,
    *,
    score: Any = None,
    mask: Any = None,
    normalizer: Any = None,
    dropout: float = 0.0,
    seed: Any = None,
    query_positions: Any = None,
    key_positions: Any = None,
) -> Any:
    r"""Compute attention over arrays whose heads come first, (B, N, T, H), as in PyTorch.

    `keras.ops.dot_product_attention` and `jax.nn.dot_product_attention` take heads third, (B, T, N, H). Convert their arrays with
    `query, key, value = (keras.ops.swapaxes(x, 1, 2) for x in (query, key, value))`, and the output in the same way.

    Each output is an average of the values, weighted by how well their keys match the query:

    $$y_i = \sum_j w_{ij} v_j, \qquad w_i = \mathrm{normalizer}(\mathrm{score}(q_i, k_j))$$

    Args:
        query: (..., T, H), with any number of leading axes; with heads, (B, N, T, H).
        key: (..., S, H). With grouped heads (B, K, S, H), where K divides N: each key head serves N / K query heads.
        value: (..., S, V), with as many heads as `key`.
        score: A `Score` or its name; the scaled dot product by default.
        mask: A `Mask`, its name ("causal"), or a bool array that broadcasts to (..., T, S). True means *may attend*.
        normalizer: A `Normalizer` or its name; softmax by default.
        dropout: The fraction of weights to drop after normalization, in [0, 1). The rest is scaled up.
        seed: An int or a `keras.random.SeedGenerator`, for dropout.
        query_positions, key_positions: Int positions (T,) or (B, T), and (S,) or (B, S). By default keys are at 0, 1, 2, ..., and
            the last query is at the last key.

    Returns:
        (..., T, V), in the dtype of `value`; integers count as `keras.config.floatx()`. A query that may attend to nothing has
        output 0 and a finite gradient.

    Raises:
        ValueError: Shapes do not fit together, a float mask has other values than 0 and 1, positions are no integers, `dropout`
            is outside [0, 1), or a name is unknown.
        TypeError: A part is of the wrong kind.

    Example:
        >>> import numpy as np, limelight as ll
        >>> query = np.array([[1.0, 0.0, 1.0], [0.0, 2.0, 1.0]])
        >>> key = np.array([[1.0, 0.0, 1.0], [0.0, 1.0, 2.0]])
        >>> value = np.array([[1.0, 2.0], [3.0, 4.0]])
        >>> print(np.array(ll.attend(query, key, value)).round(3))
        [[2.    3.   ]
         [2.699 3.699]]

    References:
        Bahdanau et al. 2015, arXiv:1409.0473; Vaswani et al. 2017, arXiv:1706.03762.
    """
    query, key, value = backend.active().as_tensors(query, key, value)
    call = make_call(
        query,
        key,
        value,
        score=score,
        mask=mask,
        normalizer=normalizer,
        query_positions=query_positions,
        key_positions=key_positions,
    )
    return call.restore_shape(compute_output(call, flatten_leading(value), dropout=dropout, seed=seed))


def attention_weights(
    query: Any,
    key: Any,
    *,
    score: Any = None,
    mask: Any = None,
    normalizer: Any = None,
    heads: Any = None,
    rows: Any = None,
    columns: Any = None,
    query_positions: Any = None,
    key_positions: Any = None,
) -> Any:
    r"""Compute the weights by which `attend` averages the values, before any dropout.

    $$w_i = \mathrm{normalizer}(\mathrm{score}(q_i, k_j))$$

    Args:
        query, key, score, mask, normalizer, query_positions, key_positions: As for `attend`, heads first.
        heads, rows, columns: A selection along N, T and S: an int, a slice, or a list of ints or bools. An int keeps its axis,
            of length 1. Other heads and rows are not computed, other columns not stored.

    Returns:
        (..., T, S), or (..., n, t, s) of a selection, in float32 or wider. Masked weights are exactly 0, and so are all weights
        of a query that may attend to nothing.

    Raises:
        ValueError: As for `attend`; or `heads` is given for queries that have no axis for them.
        IndexError: An index lies outside its axis.
        TypeError: A part or a selection is of the wrong kind.

    Example:
        >>> import numpy as np, limelight as ll
        >>> query, score = np.eye(2), ll.scores.Dot(scale=1.0)
        >>> print(np.array(ll.attention_weights(query, query, score=score)).round(3))
        [[0.731 0.269]
         [0.269 0.731]]
        >>> print(np.array(ll.attention_weights(query, query, score=score, rows=1, columns=[0])).round(3))
        [[0.269]]
    """
    query, key = backend.active().as_tensors(query, key)
    call = make_call(
        query,
        key,
        score=score,
        mask=mask,
        normalizer=normalizer,
        query_positions=query_positions,
        key_positions=key_positions,
    )
    if heads is None and rows is None and columns is None:
        return call.restore_shape(compute_weights(call))
    return dense.select_weights(call, heads, rows, columns)


def attention_statistics(
    query: Any,
    key: Any,
    value: Any = None,
    *,
    score: Any = None,
    mask: Any = None,
    normalizer: Any = None,
    top_k: int = 16,
    num_blocks: int = 64,
    query_positions: Any = None,
    key_positions: Any = None,
) -> AttentionStatistics:
    r"""Compute statistics of the weights at any length, in one pass and without a T x S array.

    For each query: entropy, log-sum-exp, the keys with the largest weights, and the mean distance. For each key: the weight that
    it receives. For coarse blocks: sums and maxima. Scratch memory grows with S, results with T + S.

    Args:
        query, key, score, mask, normalizer, query_positions, key_positions: As for `attend`, heads first.
        value: (..., S, V). If given, the output is computed in the same pass.
        top_k: The number of keys to return for each query.
        num_blocks: The largest number of coarse blocks along either axis.

    Returns:
        An `AttentionStatistics` of tensors, in float32 or wider, with leading axes (...) in place of (B, N). Distances are
        between positions. There is no gradient. A query that may attend to nothing has entropy, distance, mass and output 0,
        and top keys -1.

    Raises:
        ValueError: As for `attend`; or `top_k` or `num_blocks` is below 1, or there is no query or no key.
        TypeError: A part is of the wrong kind.

    Example:
        >>> import numpy as np, limelight as ll
        >>> statistics = ll.attention_statistics(np.eye(2), np.eye(2), score=ll.scores.Dot(scale=1.0), top_k=1)
        >>> print(np.array(statistics.top_keys)[:, 0], np.array(statistics.top_weights)[:, 0].round(3))
        [0 1] [0.731 0.731]
        >>> print(np.array(statistics.received).round(3))
        [1. 1.]
    """
    query, key, value = backend.active().as_tensors(query, key, value)
    call = make_call(
        query,
        key,
        value,
        score=score,
        mask=mask,
        normalizer=normalizer,
        query_positions=query_positions,
        key_positions=key_positions,
    )
    if call.is_empty:
        raise ValueError(
            "Statistics need at least one example, one query and one key. Received: query "
            f"{tuple(query.shape)}, key {tuple(key.shape)}."
        )
    value = None if value is None else call.prepare_value(flatten_leading(value))
    statistics = compute_statistics(call, value, top_k=top_k, num_blocks=num_blocks)
    edges = {name: getattr(statistics, name) for name in ("row_edges", "column_edges")}
    fields = statistics._replace(row_edges=None, column_edges=None)
    restored = (None if field is None else call.restore_shape(field) for field in fields)
    return AttentionStatistics(*restored)._replace(**edges)


def explain_implementation(
    query: Any,
    key: Any,
    *,
    score: Any = None,
    mask: Any = None,
    normalizer: Any = None,
    dropout: float = 0.0,
) -> Implementation:
    """Return the implementation that `attend` uses, and the reason. Nothing is computed.

    "dense" computes all scores at once; "fused" calls the backend's own kernel; "online_softmax" runs a softmax over blocks of
    keys; "blockwise" computes blocks of whole rows. The choice depends on the parts, the sizes, the backend and its device; the
    result does not depend on the choice.

    Args:
        query, key: Tensors, symbolic tensors of Keras, or shapes (..., T, H) and (..., S, H), in which None is an unknown length.
            A shape stands for float32. Values are assumed to be like the keys.
        score, mask, normalizer: As for `attend`; for a layer, `layer.core.score`, `layer.core.mask` and `layer.core.normalizer`.
        dropout: The fraction of weights to drop, if dropout is active.

    Returns:
        An object with `name` and `reason`. Printing it shows both.

    Raises:
        ValueError: As for `attend`.
        TypeError: A part is of the wrong kind, or `query` or `key` is neither a tensor nor a shape.

    Example:
        >>> import limelight as ll
        >>> print(ll.explain_implementation((1, 8, 128, 64), (1, 8, 128, 64), normalizer="sparsemax"))
        dense: 131,072 scores are few enough to be computed at once.
        >>> print(ll.explain_implementation((1, 8, 4096, 64), (1, 8, 4096, 64), normalizer="sparsemax"))
        blockwise: Sparsemax needs whole rows, which are computed block by block.
    """
    return implementations.explain(query, key, score=score, mask=mask, normalizer=normalizer, dropout=dropout)


class _Hook(NamedTuple):
    listener: Callable[[AttentionCall], None]
    transform: Callable[[AttentionCall, Any, Any], Any] | None


_hook: contextvars.ContextVar[_Hook | None] = contextvars.ContextVar("hook", default=None)


@contextlib.contextmanager
def on_call(
    listener: Callable[[AttentionCall], None],
    transform: Callable[[AttentionCall, Any, Any], Any] | None = None,
) -> Iterator[None]:
    """Observe the attention of layers that run inside, and optionally replace their outputs, in this thread or task only.

    Args:
        listener: Called with the `AttentionCall` of each attention layer, before its output is computed.
        transform: Called as `transform(call, output, value)` after the output is computed. What it returns, the layer uses in
            place of `output`, (B, N, T, V). `value` is (B, K, S, V). Not called for layers that average values by another
            algorithm, such as linear attention.
    """
    token = _hook.set(_Hook(listener, transform))
    try:
        yield
    finally:
        _hook.reset(token)


def announce_call(call: AttentionCall | Callable[[], AttentionCall]) -> AttentionCall | None:
    """Tell the listener of `on_call`, if there is one, about the call of a layer.

    Args:
        call: The call, or a function that makes it, for a layer that does not need it itself.

    Returns:
        The call; None if there is no listener.
    """
    hook = _hook.get()
    if hook is None:
        return None
    call = call if isinstance(call, AttentionCall) else call()
    hook.listener(call)
    return call


def transform_output(call: AttentionCall | None, output: Any, value: Any) -> Any:
    """Return what a layer is to use in place of the output (B, N, T, V) that it computed from weights itself.

    Args:
        call: What `announce_call` returned.
        output: The output.
        value: (B, K, S, V).
    """
    hook = _hook.get()
    return output if call is None or hook is None or hook.transform is None else hook.transform(call, output, value)


def compute_output(call: AttentionCall, value: Any, *, dropout: float = 0.0, seed: Any = None) -> Any:
    """Compute the output (B, N, T, V) of a call for values (B, K, S, V)."""
    if not 0 <= dropout < 1:
        raise ValueError(f"`dropout` must be in [0, 1). Received: dropout={dropout}.")
    values = call.prepare_value(value)
    if call.is_empty:
        result = ops.zeros((*shape_of(call.query)[:3], shape_of(values)[3]), dtype=values.dtype)
    else:
        with _unobserved():
            result = implementations.compute_output(call, values, dropout=dropout, seed=seed)
    hook = None if call.layer is None else _hook.get()
    return result if hook is None or hook.transform is None else hook.transform(call, result, value)


def compute_weights(call: AttentionCall) -> Any:
    """Compute the weights (B, N, T, S) of a call."""
    if call.is_empty:
        return ops.zeros((*shape_of(call.query)[:3], shape_of(call.key)[2]), dtype=accumulation_dtype(call.query.dtype))
    with _unobserved():
        return dense.compute_weights(call)


def _unobserved() -> contextlib.AbstractContextManager[Any]:
    """Hide what computes an attention that `on_call` has announced: its softmax is no attention of its own."""
    return contextlib.nullcontext() if _hook.get() is None else normalizers.internal_softmax()
