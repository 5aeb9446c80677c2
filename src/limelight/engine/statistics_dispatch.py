"""The survey of a question, by the backend's loop over blocks of whole rows."""

import dataclasses
from typing import Any

import keras
from keras import ops

from limelight._attention_statistics import AttentionStatistics, check
from limelight.core.block import Slice
from limelight.engine import implementations, thresholds
from limelight.engine.call import AttentionCall
from limelight.engine.statistics import Plan


def taken(
    call: AttentionCall, value: Any, *, top_k: int, num_blocks: int, align: str | None = None
) -> AttentionStatistics:
    """The survey of a question, and with values (B, K, S, V) its output; each with leading axes (B, N).

    Args:
        question: what is asked.
        value: the values, or None.
        top_k: how many keys of each query.
        num_blocks: how many coarse blocks there are at most along an axis.
        align: "start" or "end", where queries and keys are counted from there for their distance, whatever their positions.
    """
    check(top_k, num_blocks)
    if implementations.broadcast(call):
        call, value = matched(call, value)
    asked = {
        "size": thresholds.current(call.query).statistics_scores_per_block,
        "top_k": top_k,
        "num_blocks": num_blocks,
        "align": align,
    }
    rows, (received, sums, peaks) = BACKENDS[keras.backend.backend()](call, value, asked)
    row_edges, column_edges = Plan.of(call, top_k, num_blocks, align).edges
    found = {**rows, "received": received, "block_sums": sums, "block_max": peaks}
    found = {name: ops.stop_gradient(one) for name, one in found.items()}
    return AttentionStatistics(**found, row_edges=row_edges, column_edges=column_edges)


def matched(call: AttentionCall, value: Any) -> tuple[AttentionCall, Any]:
    """A question whose queries, or keys, serve all examples, and its values, with as many of each as there are examples."""
    count = max(call.query.shape[0], call.key.shape[0])
    query, key, value = (
        None if one is None else ops.broadcast_to(one, (count, *tuple(ops.shape(one))[1:]))
        for one in (call.query, call.key, value)
    )
    block = call.block.replace(batch=Slice(count))
    return dataclasses.replace(call, query=query, key=key, block=block), value


def _jax(call: AttentionCall, value: Any, asked: dict[str, Any]) -> Any:
    from limelight.engine.jax import compiled, statistics

    return compiled.run(statistics.taken, call, value, **asked)


def _torch(call: AttentionCall, value: Any, asked: dict[str, Any]) -> Any:
    from limelight.engine.torch import statistics

    return statistics.taken(call, value, **asked)


def _tensorflow(call: AttentionCall, value: Any, asked: dict[str, Any]) -> Any:
    from limelight.engine.tensorflow import statistics

    return statistics.taken(call, value, **asked)


BACKENDS = {"jax": _jax, "torch": _torch, "tensorflow": _tensorflow}
