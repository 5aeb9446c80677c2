"""What a normalizer is."""

import contextlib
import contextvars
from collections.abc import Iterator
from typing import Any, ClassVar

import keras
from keras import ops

from limelight.core.block import Block
from limelight.core.component import Component

# Below every score that float32 can hold but -inf: beside any of them its exponential is 0. Where nothing stands beside it, what
# comes of it is set to 0.
LOWEST = -3.0e38
_inner: contextvars.ContextVar[bool] = contextvars.ContextVar("inner", default=False)


class Normalizer(Component):
    """Turns the scores of each row into weights.

    It is called with scores in float32 or wider, the mask (bool, broadcastable to the scores, or None) and the tile. Weights
    where the mask is False are exactly 0, also in a row that permits nothing, and gradients are finite. The scores are those
    of whole rows.

    A normalizer whose weights are exponentials shared out over the row says so by `exponential`, and gives `logits` and `sinks`
    besides: then a path can run over blocks of keys and need not see a row as a whole.
    """

    # Whether weights are exp(logits) over the sum of these in the row, and of the sink's where there is one.
    exponential: ClassVar[bool] = False
    # Whether the weights of a row depend on the scores of other rows, so that all rows must be given at once.
    linked_rows: bool = False

    def __call__(self, scores: Any, mask: Any, *, block: Block) -> Any:
        """Weights of the same shape and dtype as the scores."""
        raise NotImplementedError

    def logits(self, scores: Any, *, block: Block) -> Any:
        """What the exponential is taken of, for a block of scores of any columns; asked only of an `exponential` one."""
        return scores

    def sinks(self, block: Block) -> Any:
        """A logit, broadcastable to (b, n, t, 1), whose exponential joins the sum of each row; None where there is none."""
        return None

    def sample_seed(self) -> "Normalizer":
        """This normalizer with what its random numbers are made from drawn, for one question.

        So that the output and the weights of one call, and each of its blocks, see the same numbers. One without random numbers
        returns itself.
        """
        return self

    def at(self, step: Any) -> "Normalizer":
        """This normalizer with other random numbers for each step of a layer that asks row by row, int32 (1,)."""
        return self


def row_peak(scores: Any, mask: Any) -> Any:
    """The largest permitted score of each row, (..., t, 1); 0 in a row that permits nothing."""
    if mask is None:
        return ops.max(scores, axis=-1, keepdims=True)
    peak = ops.max(ops.where(mask, scores, LOWEST), axis=-1, keepdims=True)
    return ops.where(peak <= LOWEST, 0.0, peak)


def softmax(scores: Any) -> Any:
    """The softmax of each row by the backend's own function, which goes through the scores once."""
    if scores.shape[-1] == 1:
        # Keras warns of a softmax over one score.
        return ops.exp(scores - scores)
    with inner():
        return ops.softmax(scores, axis=-1)


@contextlib.contextmanager
def inner() -> Iterator[None]:
    """Call a softmax inside that is a step of ours, and not the attention of somebody's layer, in this thread or task alone."""
    token = _inner.set(True)
    try:
        yield
    finally:
        _inner.reset(token)


def is_inner() -> bool:
    """Whether a softmax that is called now is a step of ours."""
    return _inner.get()


def masked(weights: Any, mask: Any) -> Any:
    """Weights that are 0 where the mask is False."""
    return weights if mask is None else ops.where(mask, weights, 0.0)


def build(normalizer: Any, shape: tuple) -> None:
    """Build a normalizer that learns, for scores of the given shape (..., N, T, S); nothing for one that does not."""
    learned = within(normalizer)
    if learned is not None and not learned.built:
        learned.build(shape)


def within(normalizer: Any) -> Any:
    """The layer that a normalizer is or holds, such as the `Sink` of `TopK(8, Sink())`; None where there is none."""
    while normalizer is not None and not isinstance(normalizer, keras.Layer):
        normalizer = getattr(normalizer, "normalizer", None)
    return normalizer
