"""TensorFlow: softmax over whole rows, in as few passes over the scores as there can be.

Each operation goes through memory. One that masks, scales or copies the scores costs as much as the softmax itself, and half as
much as the product of queries and keys. So queries are scaled in place of scores; and a mask is looked at only in those columns
that it does not permit to all rows, turned into numbers to be added to the scores, since an addition takes place where they are.
"""

import dataclasses
from typing import Any

import tensorflow as tf

from limelight.core.block import Block, Slice
from limelight.engine.call import AttentionCall
from limelight.engine.tensorflow.lengths import largest, smallest, under_xla
from limelight.masks import Mask
from limelight.normalizers import LOWEST, Softmax
from limelight.scores import Dot


def unscaled(call: AttentionCall) -> tuple[AttentionCall, float]:
    """The question with a dot product that is not scaled, and the factor by which to multiply its queries instead."""
    score, normalizer = call.score, call.normalizer
    if type(score) is not Dot or type(normalizer) is not Softmax:
        return call, 1.0
    factor = score.factor(call.query.shape[-1]) / normalizer.temperature
    return dataclasses.replace(call, score=Dot(scale=1.0), normalizer=Softmax()), factor


class Veil:
    """What a mask does to the scores of a tile, and to the rows that it leaves empty.

    Args:
        mask: the mask, or None.
        tile: the place.
    """

    def __init__(self, mask: Mask | None, block: Block) -> None:
        self.permitted, self.begin, self.end, self.length = None, 0, 0, block.columns.length
        if mask is None:
            return
        if not under_xla():
            first, last = mask.kv_full_range(block)
            ints = isinstance(first, int) and isinstance(last, int)
            start = block.columns.start
            # An open run of a few columns is not worth its operations.
            if not ints or 4 * (last - first) >= (self.length if isinstance(self.length, int) else 0) > 0:
                begin = largest(first - start, 0)
                self.begin = begin if same(begin, 0) else smallest(begin, self.length)
                self.end = smallest(largest(last - start, self.begin), self.length)
        sides = [
            mask(block.replace(columns=Slice(block.columns.total, block.columns.start + side, stop - side)))
            for side, stop in ((0, self.begin), (self.end, self.length))
            if not same(side, stop)
        ]
        if sides:
            permitted = tf.concat(sides, axis=-1)
            self.permitted = permitted[(None,) * (4 - len(permitted.shape))]

    def over(self, scores: Any) -> Any:
        """Scores (b, n, t, s) that are as low as can be where that is not permitted."""
        if self.permitted is None:
            return scores
        lowest = tf.cast(LOWEST, scores.dtype)
        if same(self.begin, self.end):
            return tf.where(self.permitted, scores, lowest)
        added = tf.where(self.permitted, tf.zeros((), scores.dtype), lowest)
        before, after = (added[:, :, :, piece] for piece in (slice(self.begin), slice(self.begin, None)))
        if same(self.begin, 0):
            return scores + tf.pad(after, ((0, 0), (0, 0), (0, 0), (self.end, 0)))
        run = tf.zeros((*tf.unstack(tf.shape(added))[:-1], self.end - self.begin), scores.dtype)
        return scores + tf.concat([before, run, after], axis=-1)

    def answered(self, rows: Any) -> Any:
        """Rows (b, n, t, ...) with zeros in those that permit nothing, of which softmax makes anything."""
        if self.permitted is None:
            return rows
        some = tf.reduce_any(self.permitted, axis=-1, keepdims=True)
        if not same(self.begin, self.end):
            some = tf.logical_or(some, self.end > self.begin)
        return tf.where(some, rows, tf.zeros((), rows.dtype))


def product(left: Any, right: Any) -> Any:
    """Products of rows, (b, n, t, s)."""
    return tf.matmul(left, right, transpose_b=True)


def same(left: Any, right: Any) -> bool:
    """Whether two numbers are known to be the same."""
    return isinstance(left, int) and isinstance(right, int) and left == right
