"""Running a model once, and saying what is wrong with what its layers asked."""

import contextlib
import warnings
from typing import Any

import keras
import numpy as np
from keras import ops

from limelight import functional
from limelight.inspection import limelight_layers, tracing
from limelight.inspection.interception import intercepting
from limelight.inspection.observation import read
from limelight.layers.attending import Attending
from limelight.linter import idle_heads, padding
from limelight.linter.findings import SEVERITIES, Finding, Findings
from limelight.linter.mask_tracking import Call, Watcher
from limelight.maps import AttentionMap
from limelight.maps.sources import QKSource

# The largest number of float16, and from where on a batch that is a little larger may reach it.
_LARGEST, _NEAR = 65504.0, 16384.0


def lint(model: Any, batch: Any) -> Findings:
    """What is wrong, or may be, with the attention of a model on one batch, in words.

    The model runs once, eagerly and in inference, and stays as it is. Looked for are: masks that a layer dropped before attention
    could obey them; padded input without a mask; masks that a layer has and does not obey; weight on padding; masks the wrong
    way round; masks of floats, which Keras does not take for additive ones; scores that may overflow float16; and heads that
    are dead: uniform, constant, stuck to one position, or read by nobody.

    A batch of a few examples of several lengths shows the most; all weights of one layer are held at a time. Where no mask says
    what is padding, zeros at the end of examples (and nowhere else) count as it.

    Args:
        model: a built model, or any layer that attends.
        batch: what the model takes.

    Returns:
        `Findings`, the worst first. Printed they are a page of text; each has `path`, `kind`, `severity`, `message`, `advice`.

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
    if not isinstance(model, keras.Layer):
        raise TypeError(
            f"`model` must be a model or layer of Keras. Received: {model!r} of type {type(model).__name__}."
        )
    batch = keras.tree.map_structure(ops.convert_to_tensor, batch)
    if not model.built:
        model(batch)
    watcher = _watched(model, batch)
    found: list[Finding] = []
    counts: dict[str, int] = {}
    for record in watcher.records:
        number = counts[record.path] = counts.get(record.path, -1) + 1
        calls = watcher.calls.get(record.path, [])
        seen = AttentionMap(record.path, read(*record.seen.split()), number, record.layer)
        call = calls[number] if number < len(calls) else Call(None)
        weights = seen.weights()
        faults = padding.findings(watcher, seen, weights, call)
        found += [*faults, *_masks(seen, call), *_scores(seen, call), *idle_heads.unread(seen, call)]
        # What heads make of padding says nothing of them.
        found += [] if faults else idle_heads.idle(watcher, seen, weights, call)
    once = {(one.path, one.kind, one.message): one for one in found}
    return Findings(sorted(once.values(), key=lambda one: SEVERITIES.index(one.severity)))


def _watched(model: Any, batch: Any) -> Watcher:
    """A watcher that has seen a model run."""
    watcher = Watcher(model, batch)

    def hear(attention_call: Any) -> None:
        watcher.record(attention_call.owner, lambda: limelight_layers.observation(attention_call))

    values = [(variable, variable.value) for variable in model.non_trainable_variables]
    with contextlib.ExitStack() as stack:
        # Keras warns of layers that destroy masks; where that does harm, a finding says so.
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        stack.enter_context(tracing.no_gradient())
        stack.enter_context(keras.StatelessScope(values))
        stack.enter_context(intercepting())
        stack.enter_context(watcher.recording())
        stack.enter_context(functional.listening(hear))
        model(batch, training=False)
    return watcher


def _masks(seen: AttentionMap, call: Call) -> list[Finding]:
    """Masks of floats."""
    found = []
    for name, values in call.floats:
        plain = bool(((values == 0) | (values == 1)).all())
        if plain:
            message = f"`{name}` is of dtype {values.dtype}, with 0 and 1 for False and True."
            advice = "Pass a bool array, so that nobody takes it for an additive mask."
            found.append(Finding(seen.path, "float mask", "note", message, advice))
        elif not isinstance(call.owner, Attending):
            message = (
                f"`{name}` holds numbers from {values.min():g} to {values.max():g}, as if it were added to the scores. "
                f"{seen.layer} takes every number but 0 for True: what is to be forbidden is permitted, and the rest forbidden."
            )
            found.append(Finding(seen.path, "additive mask", "error", message, f"Pass `{name} == 0`, which is bool."))
    return found


def _scores(seen: AttentionMap, call: Call) -> list[Finding]:
    """Scores that float16 cannot hold."""
    if getattr(call.owner, "compute_dtype", None) != "float16" or isinstance(call.owner, Attending):
        return []
    largest = 0.0
    if isinstance(seen.source, QKSource):
        everything = np.arange(seen.heads), np.arange(seen.shape[-2])
        for example in np.ndindex(*seen.shape[:-3]):
            scores = np.abs(seen.source.scores(example, *everything)[0])
            largest = max(largest, float(np.where(np.isfinite(scores), scores, np.inf).max(initial=0.0)))
    message = (
        f"{seen.layer} computes scores in float16, which ends at {_LARGEST:g}, and masks by adding a number that scores can "
        f"exceed. The largest score here is {largest:g}."
    )
    advice = "Use limelight.upgrade(model), whose scores are float32 in every dtype, or bfloat16."
    return [Finding(seen.path, "float16 scores", "error" if largest > _NEAR else "warning", message, advice)]
