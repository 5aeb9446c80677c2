"""TensorFlow: softmax of dot products over whole rows, in as few passes over the scores as there can be.

Each operation goes through memory. One that masks, scales or copies the scores costs as much as the softmax itself, and half as
much as the product of queries and keys. So queries are scaled in place of scores; a mask is looked at only in those columns that
it does not permit to all rows; and what is added to whole rows is made a part of a product, by one more column of its sides.
"""

import dataclasses
from typing import Any

import tensorflow as tf

from limelight.engine.tensorflow_lengths import largest, smallest, under_xla
from limelight.normalizers import LOWEST, Softmax
from limelight.question import Question
from limelight.scores import Dot
from limelight.tile import Span, Tile


def unscaled(question: Question) -> tuple[Question, float]:
    """The question with a dot product that is not scaled, and the factor by which to multiply its queries instead."""
    score, normalizer = question.score, question.normalizer
    if type(score) is not Dot or type(normalizer) is not Softmax:
        return question, 1.0
    factor = score.factor(question.query.shape[-1]) / normalizer.temperature
    return dataclasses.replace(question, score=Dot(scale=1.0), normalizer=Softmax()), factor


def lowered(scores: Any, permitted: Any) -> Any:
    """Scores that are as low as can be where that is not permitted."""
    return scores if permitted is None else tf.where(permitted, scores, tf.cast(LOWEST, scores.dtype))


def answered(permitted: Any, rows: Any) -> Any:
    """Rows (b, n, t, ...) with zeros in those that permit nothing, of which softmax makes anything."""
    if permitted is None:
        return rows
    return tf.where(tf.reduce_any(permitted, axis=-1, keepdims=True), rows, tf.zeros((), rows.dtype))


class Split:
    """The columns of a tile in two: an open run, which all rows may attend to, and the rest, before it and after it.

    Args:
        question: whose mask it is, with a dot product that is not scaled.
        tile: the place.
    """

    def __init__(self, question: Question, tile: Tile) -> None:
        self.begin, self.end, self.permitted = 0, tile.columns.length, None
        mask = question.mask
        self.open = mask is None
        if mask is None:
            return
        first, last = mask.full(tile)
        ints = all(isinstance(bound, int) for bound in (first, last, self.end))
        few = ints and 4 * (last - first) < self.end
        if under_xla() or (isinstance(last, int) and last <= 0) or few:
            self.permitted = mask(tile)
            return
        self.open = True
        start, length = tile.columns.start, tile.columns.length
        self.begin = smallest(largest(first - start, 0), length)
        self.end = smallest(largest(last - start, self.begin), length)
        sides = [
            mask(tile.replace(columns=Span(tile.columns.total, start + side, stop - side)))
            for side, stop in ((0, self.begin), (self.end, length))
            if not same(side, stop)
        ]
        self.permitted = tf.concat(sides, axis=-1) if sides else None

    def parts(self, tensor: Any) -> tuple[Any, Any]:
        """Keys or values (b, k, s, H) of the open run and of the rest; None where there is none."""
        if not self.open:
            return None, tensor
        if self.permitted is None:
            return tensor, None
        rest = tensor[:, :, self.end :]
        if not same(self.begin, 0):
            rest = tf.concat([tensor[:, :, : self.begin], rest], axis=2)
        return tensor[:, :, self.begin : self.end], rest

    def whole(self, run: Any, rest: Any) -> Any:
        """Keys or values (b, k, s, H) from those of the open run and of the rest."""
        if run is None or rest is None:
            return rest if run is None else run
        sides = (
            [rest[:, :, self.begin :]] if same(self.begin, 0) else [rest[:, :, : self.begin], rest[:, :, self.begin :]]
        )
        return tf.concat([*sides[:-1], run, sides[-1]], axis=2)

    def weights(self, query: Any, key: Any) -> tuple[Any, Any]:
        """Softmax weights (b, n, t, s) of the open run and of the rest; None where there is none.

        Where there are both, those of the run have one more column: what the rest has together.
        """
        run, rest = self.parts(key)
        if rest is None:
            return tf.nn.softmax(product(query, run)), None
        scores = lowered(product(query, rest), self.permitted)
        others = tf.nn.softmax(scores)
        if run is None:
            return None, others
        # The log of a row's sum of exponentials, from its largest weight: two passes that only read.
        # Bounded, since the rest of a block may turn out to have no columns at all.
        total = tf.maximum(tf.reduce_max(scores, axis=-1, keepdims=True), tf.cast(LOWEST, scores.dtype))
        total -= tf.math.log(tf.maximum(tf.reduce_max(others, axis=-1, keepdims=True), 1e-30))
        found: Any = tf.nn.softmax(product(tf.concat([query, total], axis=-1), ended(beside(run, 0.0), 1.0)))
        return found, others * found[..., -1:]

    def answered(self, rows: Any) -> Any:
        """Rows (b, n, t, ...) with zeros in those that permit nothing."""
        if self.permitted is None or not self.open:
            return answered(self.permitted, rows)
        some = tf.logical_or(tf.reduce_any(self.permitted, axis=-1, keepdims=True), self.end > self.begin)
        return tf.where(some, rows, tf.zeros((), rows.dtype))

    def mixture(self, weights: tuple[Any, Any], value: Any) -> Any:
        """The average of values (b, k, s, V): (b, n, t, V)."""
        run, rest = self.parts(value)
        if run is None or rest is None:
            return tf.matmul(weights[0] if rest is None else weights[1], value)
        return tf.matmul(weights[0], ended(run, 0.0)) + tf.matmul(weights[1], rest)

    def pull(self, weights: tuple[Any, Any], query: Any, key: Any, value: Any, along: Any, slope: Any) -> tuple:
        """Gradients by queries, and by keys and values of each head, where `along` is how far outputs lie along their slope."""
        slopes = tf.concat([slope, -along], axis=-1)
        by_query, by_keys, by_values = 0.0, [], []
        for own, keys, values in zip(weights, self.parts(key), self.parts(value), strict=True):
            if own is None:
                by_keys, by_values = [*by_keys, None], [*by_values, None]
                continue
            extra = own is weights[0] and weights[1] is not None
            # What is subtracted from each row goes into the product. The added column of weights stands at zeros.
            values = beside(values, 1.0)
            by_scores = own * product(slopes, ended(values, 0.0) if extra else values)
            by_query += tf.matmul(by_scores, ended(keys, 0.0) if extra else keys)
            stop = -1 if extra else None
            by_keys.append(tf.matmul(by_scores, query, transpose_a=True)[:, :, :stop])
            by_values.append(tf.matmul(own, slope, transpose_a=True)[:, :, :stop])
        return by_query, self.whole(*by_keys), self.whole(*by_values)


def product(left: Any, right: Any) -> Any:
    """Products of rows, (b, n, t, s)."""
    return tf.matmul(left, right, transpose_b=True)


def beside(tensor: Any, number: float) -> Any:
    """A tensor (b, k, s, H) with one more column."""
    return tf.pad(tensor, ((0, 0), (0, 0), (0, 0), (0, 1)), constant_values=number)


def ended(tensor: Any, number: float) -> Any:
    """A tensor (b, k, s, H) with one more row: zeros, and the number in the last column."""
    row = tf.one_hot([tensor.shape[-1] - 1], tensor.shape[-1], number, 0.0, dtype=tensor.dtype)
    row = tf.broadcast_to(row, (*tf.unstack(tf.shape(tensor)[:2]), 1, tensor.shape[-1]))
    return tf.concat([tensor, row], axis=2)


def same(left: Any, right: Any) -> bool:
    """Whether two numbers are known to be the same."""
    return isinstance(left, int) and isinstance(right, int) and left == right
