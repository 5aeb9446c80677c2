"""The interface of normalizers."""

import contextlib
import contextvars
from collections.abc import Iterator
from typing import Any, ClassVar

import keras
from keras import ops

from limelight.core.block import Block
from limelight.core.component import Component
from limelight.core.shapes import is_one, static_shape

# Replaces masked scores. It is finite, so that a row without permitted keys gives no NaN, and so low that its exponential is 0
# beside any other score. The weights that such a row gets from it are set to 0.
MASK_VALUE = -3.0e38
_is_internal: contextvars.ContextVar[bool] = contextvars.ContextVar("is_internal_softmax", default=False)


class Normalizer(Component):
    """Base class of normalizers, which turn the scores of each row into weights.

    A normalizer is called with scores (b, n, t, S) of whole rows in float32 or wider, a mask (bool, broadcastable to the scores,
    or None) and the block. Weights are exactly 0 where the mask is False, also in a row that permits no key, and gradients are
    finite.

    A normalizer whose weights are exponentials over their sum sets `exponential` and defines `logits` and `sinks`. It can then
    be computed in blocks of keys, by an online softmax. A subclass that overrides `call` or `__call__` must set it again.
    """

    # True if the weights are exp(logits) over their sum in the row, to which exp(sinks) is added.
    exponential: ClassVar[bool] = False
    # True if the weights of a row depend on the scores of other rows.
    needs_all_rows: bool = False

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        own = vars(cls)
        if ("call" in own or "__call__" in own) and "exponential" not in own:
            cls.exponential = False

    def __call__(self, scores: Any, mask: Any, *, block: Block) -> Any:
        """Return weights of the same shape and dtype as the scores."""
        raise NotImplementedError

    def logits(self, scores: Any, *, block: Block) -> Any:
        """Return the logits of scores (b, n, t, s) of any columns. Called only if `exponential`."""
        return scores

    def sinks(self, block: Block) -> Any:
        """Return a logit, broadcastable to (b, n, t, 1), whose exponential is added to the sum of each row; None for none."""
        return None

    def with_noise(self) -> "Normalizer":
        """Return this normalizer with the random seed of one call, or itself if it is deterministic.

        The output, the weights and all blocks of one call then see the same noise.
        """
        return self

    def at_step(self, step: Any) -> "Normalizer":
        """Return this normalizer with other noise for each step of a recurrent layer; `step` is int32 (b, 1, 1, 1)."""
        return self


def row_max(scores: Any, mask: Any) -> Any:
    """Return the largest permitted score of each row, (..., t, 1); 0 for a row that permits no key."""
    if mask is None:
        return ops.max(scores, axis=-1, keepdims=True)
    maximum = ops.max(ops.where(mask, scores, MASK_VALUE), axis=-1, keepdims=True)
    return ops.where(maximum <= MASK_VALUE, 0.0, maximum)


def softmax(scores: Any) -> Any:
    """Compute the softmax of each row by the backend's fused function."""
    if is_one(scores.shape[-1]):
        # Keras warns of a softmax over one score.
        return ops.exp(scores - scores)
    with internal_softmax():
        return ops.softmax(scores, axis=-1)


@contextlib.contextmanager
def internal_softmax() -> Iterator[None]:
    """Mark softmaxes inside as steps of this library, so that `capture` does not record them. Local to the thread or task."""
    token = _is_internal.set(True)
    try:
        yield
    finally:
        _is_internal.reset(token)


def is_internal_softmax() -> bool:
    """Return True inside `internal_softmax`."""
    return _is_internal.get()


def zero_masked(weights: Any, mask: Any) -> Any:
    """Set weights to 0 where the mask is False."""
    return weights if mask is None else ops.where(mask, weights, 0.0)


def build(normalizer: Any, shape: tuple) -> None:
    """Build the layer in a normalizer, if there is one, for scores of shape (..., N, T, S)."""
    layer = find_layer(normalizer)
    if layer is not None and not layer.built:
        layer.build(static_shape(shape))


def find_layer(normalizer: Any) -> Any:
    """Return the layer that a normalizer is or wraps, such as the `Sink` of `TopK(8, Sink())`; None if there is none."""
    while normalizer is not None and not isinstance(normalizer, keras.Layer):
        normalizer = getattr(normalizer, "normalizer", None)
    return normalizer
