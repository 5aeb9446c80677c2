"""The checks of `lint`, on the attention of one call of a layer: masks, scores and heads."""

import dataclasses

import numpy as np
from keras import ops

from limelight import _keras_private
from limelight._distributions import entropy
from limelight.inspection import keras_layers
from limelight.linter.findings import Finding
from limelight.linter.mask_tracking import KERAS_LAYERS, LIMELIGHT_LAYERS, Argument, LayerCall, MaskTracker
from limelight.maps import AttentionMap, QKSource

# The share of weight on padding that is no rounding error, and the share that only an inverted mask explains.
_SOME_WEIGHT, _NEARLY_ALL_WEIGHT = 1e-4, 0.99
# The largest number of float16, and a score from which a slightly larger batch may reach it.
_FLOAT16_MAX, _NEAR_FLOAT16_MAX = 65504.0, 16384.0
# A head is uniform from this entropy relative to its maximum, stuck from this mean weight of one position, and without effect up
# to this norm relative to the largest head's.
_UNIFORM, _STUCK, _NO_EFFECT = 0.9999, 0.99, 1e-6
# The number of queries with more than one permitted key that it takes to judge a head.
_MIN_QUERIES = 4
_HEAD_ADVICE = {
    "uniform": (
        "This is what an untrained head, zero queries or a large temperature look like. If training does not change it, use "
        "fewer heads."
    ),
    "stuck": (
        "A head with nothing to contribute often attends to the first position; normalizer=limelight.normalizers.Sink() lets it "
        "attend to nothing."
    ),
    "constant": "Check that the queries differ at all: they may be normalized or dropped out before.",
    "without effect": "Use fewer heads, or initialize this one anew.",
}
_INVERTED_ADVICE = "In a mask, True means *may attend*. Pass `~mask`."


@dataclasses.dataclass(frozen=True, eq=False)
class Subject:
    """The input of a check.

    Args:
        tracker: what is known of padding in the model.
        map: the attention.
        weights: all weights of the map, (B, ..., N, T, S).
        call: the call of the layer.
    """

    tracker: MaskTracker
    map: AttentionMap
    weights: np.ndarray
    call: LayerCall

    def finding(self, kind: str, severity: str, message: str, advice: str) -> Finding:
        """Make a finding about the layer."""
        return Finding(self.map.key, kind, severity, message, advice)


def check_mask(subject: Subject) -> list[Finding]:
    """Find weight on padding, its cause, and inverted masks."""
    findings = _check_inverted_causal(subject)
    weights = subject.weights
    keys = subject.tracker.find_argument(subject.call, weights.shape[-1], ("key", "value", "inputs"))
    if keys is None or weights.ndim != 4 or len(keys.padding.is_real) != len(weights):
        return findings
    rows = subject.tracker.find_real_queries(subject.call, weights)
    weights = weights * rows[:, None, :, None]
    total = float(weights.sum())
    share = float((weights * ~keys.padding.is_real[:, None, None]).sum()) / total if total else 0.0
    if share < _SOME_WEIGHT:
        return findings
    if share > _NEARLY_ALL_WEIGHT and keys.padding.is_declared:
        message = f"The mask permits padding only: {share:.1%} of the weight lies there, and none on real positions."
        return [*findings, subject.finding("inverted mask", "error", message, _INVERTED_ADVICE)]
    message = f"{share:.1%} of the weight of {rows.sum()} real queries lies on padding."
    advice = "The result of an example depends on how far it is padded. The cause is reported separately."
    severity = "error" if keys.padding.is_declared else "warning"
    return [*findings, subject.finding("weight on padding", severity, message, advice), _find_cause(subject, keys)]


def _find_cause(subject: Subject, keys: Argument) -> Finding:
    """Explain why a layer attends to padding."""
    if keys.is_masked:
        message = "The layer receives a mask and attends to padding all the same."
        advice = "Use the mask in its `call`, or use a layer of limelight.layers, which obeys it."
        return subject.finding("ignored mask", "error", message, advice)
    if keys.padding.dropped_by is not None:
        path, class_name = keys.padding.dropped_by
        message = (
            f"{class_name} receives a mask and does not pass it on, so that {subject.map.key!r} knows of no padding."
        )
        advice = (
            "Use limelight.upgrade(model): Keras's layer removes the mask from its inputs."
            if class_name in ("MultiHeadAttention", "GroupedQueryAttention", "GroupQueryAttention")
            else "Use a layer that keeps masks (keras.layers.Add for +), set `supports_masking = True` in your own layer, or "
            "pass the mask, of the new length if the layer changes it, to the attention yourself."
        )
        return Finding(path, "lost mask", "error", message, advice)
    message = "The input looks padded, with zeros at the end of examples, and has no mask."
    if keys.padding.is_declared:
        message = "The model has a mask of these positions, but the input of the layer carries none."
    advice = "Use keras.layers.Embedding(..., mask_zero=True) or keras.layers.Masking, or pass the mask as an argument."
    return subject.finding("missing mask", "error" if keys.padding.is_declared else "warning", message, advice)


def _check_inverted_causal(subject: Subject) -> list[Finding]:
    """Find a causal mask that permits what it should forbid: each query attends to later positions only."""
    num_queries, num_keys = subject.weights.shape[-2:]
    if num_queries != num_keys or num_queries < 3:
        return []
    is_later = np.triu(np.ones((num_queries, num_keys), bool), 1)
    row_sums = subject.weights[..., :-1, :].sum(axis=-1)
    if subject.weights[..., ~is_later].any() or not (row_sums > 0).all():
        return []
    message = "Each query attends to later positions only, and the last one to nothing: the causal mask is inverted."
    return [subject.finding("inverted mask", "error", message, _INVERTED_ADVICE)]


def check_mask_dtype(subject: Subject) -> list[Finding]:
    """Find masks of floats that a layer reads as bool: Keras's layers do, and others if they were seen to."""
    call, findings = subject.call, []
    is_known = isinstance(call.layer, LIMELIGHT_LAYERS) or type(call.layer) in KERAS_LAYERS
    for name, tensor in call.float_masks:
        values = ops.convert_to_numpy(tensor)
        is_binary = ((values == 0) | (values == 1)).all()
        if is_binary and not is_known:
            continue
        if is_binary:
            message = f"`{name}` has dtype {values.dtype}, with 0 and 1 for False and True."
            advice = "Pass a bool array, so that nobody takes it for an additive mask."
            findings.append(subject.finding("float mask", "note", message, advice))
        elif name in call.read_as_bool or type(call.layer) in KERAS_LAYERS:
            message = (
                f"`{name}` holds numbers from {values.min():g} to {values.max():g}, as if it were added to the scores. "
                f"{subject.map.layer} takes every number except 0 for True, so that forbidden pairs are permitted and permitted "
                "ones forbidden."
            )
            findings.append(subject.finding("additive mask", "error", message, f"Pass `{name} == 0`, which is bool."))
    return findings


def check_score_dtype(subject: Subject) -> list[Finding]:
    """Find scores that float16 cannot hold: those of Keras's dense layers, and those of which a float16 softmax was seen."""
    layer, source = subject.call.layer, subject.map.source
    if getattr(layer, "compute_dtype", None) != "float16" or isinstance(layer, LIMELIGHT_LAYERS):
        return []
    is_dense = keras_layers.computes_attention(layer)
    if not is_dense and subject.map.path not in subject.tracker.float16_softmaxes:
        return []
    message = f"{subject.map.layer} computes scores in float16, whose largest number is {_FLOAT16_MAX:g}"
    if not is_dense:
        advice = "Cast the scores to float32 before the softmax, or use bfloat16."
        return [subject.finding("float16 scores", "warning", f"{message}.", advice)]
    largest = 0.0
    if isinstance(source, QKSource):
        heads, rows = np.arange(source.shape[-3]), np.arange(source.shape[-2])
        for example in np.ndindex(*source.shape[:-3]):
            scores = np.abs(source.scores(example, heads, rows))
            largest = max(largest, float(np.where(np.isfinite(scores), scores, np.inf).max(initial=0.0)))
    message += f", and masks by adding a number that scores can exceed. The largest score here is {largest:g}."
    advice = "Use limelight.upgrade(model), whose scores are float32 in every dtype, or bfloat16."
    severity = "error" if largest > _NEAR_FLOAT16_MAX else "warning"
    return [subject.finding("float16 scores", severity, message, advice)]


def check_number_of_keys(subject: Subject) -> list[Finding]:
    """Find attention over one key."""
    if subject.weights.shape[-1] != 1:
        return []
    return [make_single_key_finding(subject.map.key, subject.map.layer)]


def make_single_key_finding(path: str, class_name: str) -> Finding:
    """Make a finding about a softmax over one number, whose result does not depend on it."""
    message = (
        f"{class_name} has a softmax over one number in this batch, so that every result is 1, whatever the number."
    )
    advice = (
        "Check the axis: weights over steps (B, T, 1) need axis=1. For a probability use a sigmoid. Nothing is wrong if the "
        "batch happens to have one step."
    )
    return Finding(path, "single key", "warning", message, advice)


def check_head_weights(subject: Subject) -> list[Finding]:
    """Find heads whose weights do not depend on the query."""
    rows = subject.tracker.find_real_queries(subject.call, subject.weights)
    heads: dict[tuple[str, str], list[int]] = {}
    for head in range(subject.weights.shape[-3]):
        fault = _find_head_fault(subject.weights[..., head, :, :], rows)
        if fault is not None:
            heads.setdefault(fault, []).append(head)
    return [_dead_heads(subject, "note", numbers, *fault) for fault, numbers in heads.items()]


def check_head_projections(subject: Subject) -> list[Finding]:
    """Find heads of a multi-head layer whose values or outputs are multiplied by zero."""
    value_dense = _keras_private.get_value_dense(subject.call.layer)
    output_dense = _keras_private.get_output_dense(subject.call.layer)
    # All calls of a layer have the same projections.
    if subject.map.call_index or not hasattr(value_dense, "kernel") or not hasattr(output_dense, "kernel"):
        return []
    values, outputs = (ops.convert_to_numpy(ops.cast(dense.kernel, "float32")) for dense in (value_dense, output_dense))
    group_size = len(outputs) // values.shape[1]
    norms = np.array(
        [np.linalg.norm(values[:, head // group_size]) * np.linalg.norm(kernel) for head, kernel in enumerate(outputs)]
    )
    heads = np.flatnonzero(norms <= _NO_EFFECT * max(norms.max(), 1e-30)).tolist()
    reason = "its value or output projection is zero."
    return [_dead_heads(subject, "warning", heads, "without effect", reason)] if heads else []


def _dead_heads(subject: Subject, severity: str, heads: list[int], fault: str, reason: str) -> Finding:
    subjects = f"Head {heads[0]} is" if len(heads) == 1 else f"Heads {', '.join(map(str, heads))} are"
    return subject.finding("dead head", severity, f"{subjects} {fault}: {reason}", _HEAD_ADVICE[fault])


def _find_head_fault(weights: np.ndarray, rows: np.ndarray) -> tuple[str, str] | None:
    """Return what is wrong with a head, and a sentence about it, from its weights (B, ..., T, S) and the real rows of these."""
    num_permitted = (weights > 0).sum(axis=-1)
    chosen = weights[rows & (num_permitted > 1)]  # (queries, S)
    if len(chosen) < _MIN_QUERIES:
        # All weight of a stuck head may lie on one key, in as many rows as there are.
        chosen = weights[rows & (num_permitted > 0)]
        if len(chosen) < _MIN_QUERIES or weights.shape[-1] < 3:
            return None
    else:
        normalized = entropy(chosen) / np.log(num_permitted[rows & (num_permitted > 1)])
        if normalized.min() > _UNIFORM:
            return "uniform", f"in each of {len(chosen)} queries all keys have the same weight."
    mean = chosen.mean(axis=0)
    if mean.max() > _STUCK:
        return "stuck", f"{mean.max():.1%} of the weight lies on position {mean.argmax()}, whatever the query."
    if weights.shape[-2] > 2 and _has_equal_rows(weights, rows):
        return "constant", "all queries of an example have the same weights."
    return None


def _has_equal_rows(weights: np.ndarray, rows: np.ndarray) -> bool:
    """Return True if the real rows of each example are equal."""
    for example in np.ndindex(*weights.shape[:-2]):
        real = weights[example][rows[example]]
        if len(real) > 1 and np.ptp(real, axis=0).max() > 1e-6:
            return False
    return True
