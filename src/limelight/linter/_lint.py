"""Run a model once, and check the attention of its layers."""

import warnings
from typing import Any

import keras
from keras import ops

from limelight.engine import backend
from limelight.inspection._observed_attention import export_call, to_source
from limelight.inspection.interception import recording
from limelight.inspection.recorder import check_model
from limelight.linter import checks
from limelight.linter.findings import SEVERITIES, Finding, Findings
from limelight.linter.mask_tracking import LayerCall, MaskTracker
from limelight.maps import AttentionMap


def lint(model: Any, batch: Any) -> Findings:
    """Find what is wrong, or may be, with the attention of a model on one batch.

    The model runs once, eagerly and in inference, and stays as it is. It is checked for masks that a layer drops before attention
    can obey them; padded inputs without a mask; masks that a layer receives and does not obey; weight on padding; inverted
    masks; masks of floats that a layer does not treat as additive; scores that may overflow float16; a softmax over one key; and
    dead heads: uniform, constant, stuck on one position, or multiplied by zero. What a layer of your own does with a mask, and
    where padding is after a layer that changes the length, is found by running that layer again with other numbers.

    A batch of a few examples of different lengths shows the most; all weights of one layer are held at a time. If no mask says
    what is padding, zeros at the end of examples (and nowhere else) count as padding.

    Args:
        model: a built model, or any layer that attends.
        batch: the inputs of the model.

    Returns:
        `Findings`, the most severe first. They print as a report; each has `path`, `kind`, `severity`, `message` and `advice`.

    Raises:
        TypeError: `model` is no model or layer of Keras.

    Example:
        >>> import keras, numpy as np, limelight as ll
        >>> words = keras.Input((5,), dtype="int32")
        >>> steps = keras.layers.Embedding(9, 8)(words)
        >>> model = keras.Model(words, keras.layers.Attention(name="reader")([steps, steps]))
        >>> findings = ll.lint(model, np.array([[1, 2, 3, 4, 5], [6, 7, 8, 0, 0]]))
        >>> [(finding.kind, finding.path) for finding in findings][:2]
        [('weight on padding', 'reader'), ('missing mask', 'reader')]
    """
    check_model(model)
    batch = keras.tree.map_structure(ops.convert_to_tensor, batch)
    if not model.built:
        model(batch)
    tracker = _run_and_track(model, batch)
    findings: list[Finding] = []
    counts: dict[str, int] = {}
    for record in tracker.records:
        index = counts[record.path] = counts.get(record.path, -1) + 1
        calls = tracker.calls.get(record.path, [])
        call = calls[index] if index < len(calls) else LayerCall(None)
        attention_map = AttentionMap(record.path, to_source(*export_call(record.call)), index, record.layer)
        subject = checks.Subject(tracker, attention_map, attention_map.weights(), call)
        mask_findings = checks.check_mask(subject)
        findings += mask_findings
        for check in (
            checks.check_mask_dtype,
            checks.check_score_dtype,
            checks.check_number_of_keys,
            checks.check_head_projections,
        ):
            findings += check(subject)
        # A wrong mask distorts the weights of all heads.
        findings += [] if mask_findings else checks.check_head_weights(subject)
    findings += [checks.make_single_key_finding(path, name) for path, name in tracker.softmaxes_of_one]
    unique = {(finding.path, finding.kind, finding.message): finding for finding in findings}
    return Findings(sorted(unique.values(), key=lambda finding: SEVERITIES.index(finding.severity)))


def _run_and_track(model: Any, batch: Any) -> MaskTracker:
    """Run a model and return what was recorded. The model's own state does not change."""
    tracker = MaskTracker(model, batch)
    state = [variable.value for variable in model.non_trainable_variables]
    with warnings.catch_warnings(), backend.active().no_gradient(), recording(tracker):
        # Keras warns of layers that destroy masks; if that does harm, there is a finding.
        warnings.simplefilter("ignore")
        backend.call_stateless(model, state, batch, training=False)
    return tracker
