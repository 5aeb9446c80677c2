"""The verbs: `attend`, `attention_weights` and `attention_statistics`. Pure functions of tensors; which path computes them is chosen inside."""

import contextlib
import contextvars
from collections.abc import Callable, Iterator
from typing import Any

from keras import ops

from limelight._attention_statistics import AttentionStatistics
from limelight.core.component import shape_of
from limelight.core.precision import accumulation_dtype
from limelight.engine import dense, dispatch, explain, indexing, placement, statistics_dispatch
from limelight.engine.call import AttentionCall, fold, make_call
from limelight.engine.implementations import Implementation

_listener: contextvars.ContextVar[Callable[[AttentionCall], None] | None] = contextvars.ContextVar(
    "listener", default=None
)


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
    r"""Attention: for each query, the average of the values weighted by how well their keys match.

    $$y_i = \sum_j w_{ij} v_j, \qquad w_i = \mathrm{normalizer}(\mathrm{score}(q_i, k_j))$$

    Args:
        query: (..., T, H). Any number of leading axes; with heads, (B, N, T, H).
        key: (..., S, H). With grouped heads (B, K, S, H), where K divides N: each key head serves N / K query heads.
        value: (..., S, V), with as many heads as `key`.
        score: a `Score` or its name; the scaled dot product by default.
        mask: a `Mask`, its name ("causal"), or a bool array that broadcasts to (..., T, S); True means *may attend*.
        normalizer: a `Normalizer` or its name; softmax by default.
        dropout: the share of weights set to zero after normalisation, the rest scaled up; in [0, 1).
        seed: a `keras.random.SeedGenerator` or an int, for the dropout.
        query_positions, key_positions: int positions (T,) or (B, T), and (S,) or (B, S), where they are not 0, 1, 2, ... with
            the last query at the last key. A cache needs them.

    Returns:
        (..., T, V), in the dtype of `value`; integers count as `keras.config.floatx()`. A query that may attend to nothing gives
        zeros and a finite gradient.

    Raises:
        ValueError: shapes that do not belong together, a float mask with other values than 0 and 1, an unknown name.
        TypeError: a part of the wrong kind.

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
    query, key, value = placement.placed(query, key, value)
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
    return call.unfold(output(call, fold(value), dropout=dropout, seed=seed))


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
    r"""The weights by which `attend` averages the values, before any dropout.

    $$w_i = \mathrm{normalizer}(\mathrm{score}(q_i, k_j))$$

    Args:
        query, key, score, mask, normalizer, query_positions, key_positions: as `attend`.
        heads, rows, columns: which of N, T and S; an int, a slice, a list of ints or bools. An int keeps its axis, of length 1.
            Heads and rows that are not chosen cost nothing, and columns that are not are not held.

    Returns:
        (..., T, S), or of what was chosen (..., n, t, s), in float32 or wider. Masked weights are exactly 0.

    Raises:
        ValueError: as `attend`; heads of queries that have no axis for them.
        IndexError: an index outside.
        TypeError: a part of the wrong kind, or a choice that is none.

    Example:
        >>> import numpy as np, limelight as ll
        >>> print(np.array(ll.attention_weights(np.eye(2), np.eye(2), score=ll.scores.Dot(scale=1.0))).round(3))
        [[0.731 0.269]
         [0.269 0.731]]
        >>> print(np.array(ll.attention_weights(np.eye(2), np.eye(2), score=ll.scores.Dot(scale=1.0), rows=1, columns=[0])).round(3))
        [[0.269]]
    """
    query, key = placement.placed(query, key)
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
        return call.unfold(weights(call))
    return indexing.chosen(call, heads, rows, columns)


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
    r"""What there is to know of the weights of an attention of any length, in one pass, without a T x S array.

    Of each query the entropy, the log-sum-exp, the keys with the largest weights, and the mean distance; of each key the mass
    that it receives; the sums and the largest weights of coarse blocks. Scratch grows with S, results with T + S.

    Args:
        query, key, score, mask, normalizer, query_positions, key_positions: as `attend`.
        value: (..., S, V). With it the output comes from the same pass.
        top_k: how many keys of each query.
        num_blocks: how many coarse blocks there are at most along either axis.

    Returns:
        A `AttentionStatistics` of tensors, in float32 or wider, with (...) for (B, N). Distances are those of positions. No gradient goes
        through it. A query that may attend to nothing has entropy, distance, mass and output 0 and top keys -1.

    Raises:
        ValueError: as `attend`, for `top_k` or `num_blocks` below 1, and where there is no query or no key.
        TypeError: a part of the wrong kind.

    Example:
        >>> import numpy as np, limelight as ll
        >>> seen = ll.attention_statistics(np.eye(2), np.eye(2), score=ll.scores.Dot(scale=1.0), top_k=1)
        >>> print(np.array(seen.top_keys)[:, 0], np.array(seen.top_weights)[:, 0].round(3))
        [0 1] [0.731 0.731]
        >>> print(np.array(seen.received).round(3))
        [1. 1.]
    """
    query, key, value = placement.placed(query, key, value)
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
    if call.empty:
        raise ValueError(
            "There must be something to survey: an example, a query and a key. Received: query "
            f"{tuple(query.shape)}, key {tuple(key.shape)}."
        )
    value = None if value is None else call.values(fold(value))
    found = statistics_dispatch.taken(call, value, top_k=top_k, num_blocks=num_blocks)
    edges = {name: getattr(found, name) for name in ("row_edges", "column_edges")}
    unfolded = (None if one is None else call.unfold(one) for one in found._replace(row_edges=None, column_edges=None))
    return AttentionStatistics(*unfolded)._replace(**edges)


def explain_implementation(
    query: Any,
    key: Any,
    *,
    score: Any = None,
    mask: Any = None,
    normalizer: Any = None,
    dropout: float = 0.0,
) -> Implementation:
    """Which path `attend` takes, and why: it follows from the parts, the sizes, the backend and its device. Nothing is computed.

    "dense" computes all scores at once; "fused" calls the backend's own kernel; "online_softmax" keeps a running softmax over blocks of
    keys; "blockwise" computes blocks of whole rows. All give the same.

    Args:
        query, key: tensors, Keras's symbolic ones, or shapes (..., T, H) and (..., S, H), in which None is not known yet. Shapes
            stand for float32, and values are taken to be like the keys.
        score, mask, normalizer: as `attend`; for a layer `layer.score`, `layer.mask` and `layer.normalizer`.
        dropout: the share of weights that is dropped, where dropout is active.

    Returns:
        A value with `name` and `why`, which prints both.

    Raises:
        ValueError: as `attend`.
        TypeError: a part of the wrong kind, or neither tensors nor shapes.

    Example:
        >>> import limelight as ll
        >>> print(ll.explain_implementation((1, 8, 128, 64), (1, 8, 128, 64), normalizer="sparsemax"))
        dense: 131,072 scores are few enough to be computed at once.
        >>> print(ll.explain_implementation((1, 8, 4096, 64), (1, 8, 4096, 64), normalizer="sparsemax"))
        blockwise: Sparsemax needs whole rows, which are computed block by block.
    """
    return explain.explained(query, key, score=score, mask=mask, normalizer=normalizer, dropout=dropout)


def output(call: AttentionCall, value: Any, *, dropout: float = 0.0, seed: Any = None) -> Any:
    """The output (B, N, T, V) of a question for values (B, K, S, V)."""
    if not 0 <= dropout < 1:
        raise ValueError(f"`dropout` must be in [0, 1). Received: dropout={dropout}.")
    value = call.values(value)
    if call.empty:
        return ops.zeros((*shape_of(call.query)[:3], shape_of(value)[3]), dtype=value.dtype)
    return dispatch.output(call, value, dropout=dropout, seed=seed)


def weights(call: AttentionCall) -> Any:
    """The weights (B, N, T, S) of a question."""
    if call.empty:
        return ops.zeros((*shape_of(call.query)[:3], shape_of(call.key)[2]), dtype=accumulation_dtype(call.query.dtype))
    return dense.weights(call)


@contextlib.contextmanager
def listening(listener: Callable[[AttentionCall], None]) -> Iterator[None]:
    """Call `listener` with the question of every attention layer that runs inside, in this thread or task alone."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


def announce(call: AttentionCall | Callable[[], AttentionCall]) -> None:
    """Tell the listener, where there is one, what a layer asks; a function makes the question for a layer that needs none."""
    listener = _listener.get()
    if listener is not None:
        listener(call if isinstance(call, AttentionCall) else call())
