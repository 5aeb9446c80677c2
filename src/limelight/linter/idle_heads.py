"""Heads that do nothing that their queries ask for."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from keras import ops

from limelight.linter.findings import Finding
from limelight.linter.mask_tracking import Call, Watcher
from limelight.maps import AttentionMap

# Shares from which on a head counts as uniform, as stuck to one position, and as giving nothing beside the others.
_UNIFORM, _STUCK, _NOTHING = 0.9999, 0.99, 1e-6
# How many queries with a choice it takes to tell.
_ENOUGH = 4
_ADVICE = {
    "uniform": "An untrained head, queries of zeros or a large temperature look so. If training leaves it so, use fewer heads.",
    "stuck": "A head that has nothing to say often rests on the first position; with normalizer=limelight.normalizers.Sink() it need not.",
    "constant": "Look whether queries differ at all, for example whether they are normalised or dropped before.",
    "without effect": "Use fewer heads, or initialise it anew.",
}


def idle(watcher: Watcher, seen: AttentionMap, weights: np.ndarray, call: Call) -> list[Finding]:
    """The heads of one layer that attend alike whatever is asked."""
    alike: dict[tuple[str, str], list[int]] = {}
    rows = np.ones(weights.shape[:-3] + weights.shape[-2:-1], bool)
    asking = watcher.steps(call, weights.shape[-2], ("query", "inputs"))
    if asking is not None and asking.steps.real.shape == rows.shape:
        rows = asking.steps.real
    for head in range(weights.shape[-3]):
        kind = behaviour(weights[..., head, :, :], rows)
        if kind is not None:
            alike.setdefault(kind, []).append(head)
    return [dead(seen, "note", heads, *kind) for kind, heads in alike.items()]


def dead(seen: AttentionMap, severity: str, heads: Sequence[int], kind: str, why: str) -> Finding:
    """What is said of heads that are dead in the same way."""
    who = f"Head {heads[0]} is" if len(heads) == 1 else f"Heads {', '.join(map(str, heads))} are"
    return Finding(seen.path, "dead head", severity, f"{who} {kind}: {why}", _ADVICE[kind])


def behaviour(weights: np.ndarray, rows: np.ndarray) -> tuple[str, str] | None:
    """What is odd about a head's weights (B, ..., T, S) in its real rows (B, ..., T)."""
    permitted = (weights > 0).sum(axis=-1)
    chosen = rows & (permitted > 1)
    asked = weights[chosen]  # (rows with a choice, S)
    if len(asked) < _ENOUGH:
        # A head with all its weight in one place has no choice left to see, but in as many rows as there are.
        asked = weights[rows & (permitted > 0)]
        if len(asked) < _ENOUGH or weights.shape[-1] < 3:
            return None
    else:
        entropy = -(asked * np.log(np.where(asked > 0, asked, 1))).sum(axis=-1) / np.log(permitted[chosen])
        if entropy.min() > _UNIFORM:
            return "uniform", f"in each of {len(asked)} queries all keys have the same weight."
    share = asked.mean(axis=0)
    if share.max() > _STUCK:
        return "stuck", f"{share.max():.1%} of the weight lies on position {share.argmax()}, whatever is asked."
    if weights.shape[-2] > 2 and constant(weights, rows):
        return "constant", "all queries of an example have the same weights."
    return None


def constant(weights: np.ndarray, rows: np.ndarray) -> bool:
    """Whether all real rows of each example are the same."""
    for example in np.ndindex(*weights.shape[:-2]):
        own = weights[example][rows[example]]
        if len(own) > 1 and np.ptp(own, axis=0).max() > 1e-6:
            return False
    return True


def unread(seen: AttentionMap, call: Call) -> list[Finding]:
    """The heads of a multi-head layer whose values come to nothing in the output."""
    owner = call.owner
    value: Any = getattr(owner, "_value_dense", None)
    output: Any = getattr(owner, "_output_dense", None)
    if not hasattr(value, "kernel") or not hasattr(output, "kernel"):
        return []
    values, outputs = (ops.convert_to_numpy(ops.cast(dense.kernel, "float32")) for dense in (value, output))
    groups = len(outputs) // values.shape[1]
    norms = np.array(
        [np.linalg.norm(values[:, head // groups]) * np.linalg.norm(own) for head, own in enumerate(outputs)]
    )
    nothing = np.flatnonzero(norms <= _NOTHING * max(norms.max(), 1e-30)).tolist()
    why = "the weights of its values or of its output are zero."
    return [dead(seen, "warning", nothing, "without effect", why)] if nothing else []
