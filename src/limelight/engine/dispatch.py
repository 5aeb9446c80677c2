"""The output of a call, by the implementation that suits it."""

from typing import Any

from limelight.core.random import sample_seed
from limelight.engine import backend, dense, implementations
from limelight.engine.call import AttentionCall


def output(call: AttentionCall, value: Any, *, dropout: float = 0.0, seed: Any = None) -> Any:
    """Compute the output (B, N, T, V) of a call for values (B, K, S, V), in the dtype of the values."""
    active = backend.active()
    call = active.prepare(call)
    implementation = implementations.choose(call, value, dropout).name
    if implementation == "fused":
        return active.fused(call, value)
    call_seed = sample_seed(seed) if dropout else None
    if implementation == "dense":
        return dense.output(call, value, dropout=dropout, seed=call_seed)
    compute = active.online_softmax if implementation == "online_softmax" else active.blockwise
    return compute(call, value, dropout=dropout, seed=call_seed)
