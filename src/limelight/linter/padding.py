"""Padding that is read, and masks that are the wrong way round."""

import numpy as np

from limelight.linter.findings import Finding
from limelight.linter.mask_tracking import Call, Given, Watcher
from limelight.maps import AttentionMap

# The share of weight from which on it is no rounding error, and that from which on a mask must be the wrong way round.
_SOME, _NEARLY_ALL = 1e-4, 0.99


def findings(watcher: Watcher, seen: AttentionMap, weights: np.ndarray, call: Call) -> list[Finding]:
    """What is wrong with how one layer treats padding, and with the direction of its mask."""
    found = future_only(seen, weights)
    given = watcher.steps(call, seen.shape[-1], ("key", "value", "inputs"))
    if given is None or weights.ndim != 4 or len(given.steps.real) != len(weights):
        return found
    share, rows = on_padding(watcher, weights, call, given)
    if share < _SOME:
        return found
    if share > _NEARLY_ALL and given.steps.declared:
        message = f"All that is permitted is padding: {share:.1%} of the weight lies there, and none on real steps."
        return [*found, Finding(seen.path, "inverted mask", "error", message, "True means *may attend*. Pass `~mask`.")]
    message = f"{share:.1%} of the weight of {rows} real queries lies on padding."
    advice = "What comes out of an example depends on how far it is padded. The cause is a finding of its own."
    severity = "error" if given.steps.declared else "warning"
    return [*found, Finding(seen.path, "weight on padding", severity, message, advice), cause(seen, given)]


def on_padding(watcher: Watcher, weights: np.ndarray, call: Call, given: Given) -> tuple[float, int]:
    """The share of weight that real queries put on padding, and how many real queries there are."""
    real = given.steps.real
    asking = watcher.steps(call, weights.shape[2], ("query", "inputs"))
    rows = np.ones((len(weights), weights.shape[2]), bool)
    if asking is not None and asking.steps.real.shape == rows.shape:
        rows = asking.steps.real
    counted = weights * rows[:, None, :, None]
    total = float(counted.sum())
    return float((counted * ~real[:, None, None]).sum()) / total if total else 0.0, int(rows.sum())


def cause(seen: AttentionMap, given: Given) -> Finding:
    """Why a layer reads padding."""
    steps = given.steps
    if given.masked:
        message = "The layer has a mask and lets padding in all the same."
        advice = "Have it use the mask in its `call`, or use a layer of limelight.layers, which obeys it."
        return Finding(seen.path, "ignored mask", "error", message, advice)
    if steps.lost is not None:
        path, layer = steps.lost
        message = f"{layer} gets a mask and passes none on, so that {seen.path!r} cannot know of the padding."
        advice = (
            "Use limelight.upgrade(model): Keras's layer takes the mask off its inputs."
            if layer in ("MultiHeadAttention", "GroupedQueryAttention", "GroupQueryAttention")
            else "Use a layer that keeps masks (keras.layers.Add for +), set `supports_masking = True` in your own, or pass the "
            "mask to the attention yourself."
        )
        return Finding(path, "lost mask", "error", message, advice)
    message = "Its input looks padded, with zeros at the end of examples, and there is no mask."
    if steps.declared:
        message = "There is a mask of these steps in the model, and none on what the layer gets."
    advice = "Use keras.layers.Embedding(..., mask_zero=True) or keras.layers.Masking, or pass the mask as an argument."
    return Finding(seen.path, "missing mask", "error" if steps.declared else "warning", message, advice)


def future_only(seen: AttentionMap, weights: np.ndarray) -> list[Finding]:
    """A causal mask the wrong way round: every query sees what comes after it, and nothing else."""
    rows, columns = weights.shape[-2:]
    if rows != columns or rows < 3:
        return []
    after = np.triu(np.ones((rows, columns), bool), 1)
    if weights[..., ~after].any() or not (weights[..., :-1, :].sum(axis=-1) > 0).all():
        return []
    message = (
        "Every query attends to later steps alone, and the last one to nothing: a causal mask the wrong way round."
    )
    return [Finding(seen.path, "inverted mask", "error", message, "True means *may attend*. Pass `~mask`.")]
