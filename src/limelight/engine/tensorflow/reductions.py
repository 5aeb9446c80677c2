"""TensorFlow: what a survey makes of all weights of a block, in few passes over them."""

from typing import Any

import tensorflow as tf

from limelight.engine.reductions import LONG, Passes
from limelight.engine.tensorflow.lengths import largest, lengths, smallest, under_xla

# At least so many runs of keys, of which those with the largest weights are looked at, and at least so many of each sought key.
RUNS, EACH = 128, 8
# Runs shorter than this are not worth their maxima.
SHORT = 4


class TensorFlowPasses(Passes):
    """As products, which make no second array of as many numbers, and which read the weights as they lie: with long rows turned,
    a product of few columns takes up to eight times as long."""

    def averages(self, raised: Any, logits: Any) -> Any:
        columns = raised.shape[3]
        if under_xla() or (columns is not None and columns < LONG):
            return super().averages(raised, logits)
        # Of each row by itself, both as they lie.
        rows, others = (tf.reshape(one, (-1, 1, lengths(one)[3])) for one in (raised, logits))
        found = tf.matmul(rows, others, transpose_b=True)
        return tf.ensure_shape(tf.reshape(found, (*lengths(raised)[:3], 1)), (*raised.shape[:3], 1))

    def apart(self, raised: Any, queries: Any, keys: Any, place: Any) -> Any:
        rows, columns = raised.shape[2], lengths(raised)[3]
        if place is None or rows is None or (isinstance(columns, int) and columns < rows) or under_xla():
            return super().apart(raised, queries, keys, place)
        # Of all columns but those beside the rows it is known whether they lie before or after: there a distance is a
        # difference, and its average a difference of averages, which are products with a number for each column.
        size = smallest(rows, columns)
        first = smallest(largest(place, 0), columns - size)
        middle, index = tf.reduce_mean(queries), tf.range(columns)
        side = tf.cast(index >= first + size, raised.dtype) - tf.cast(index < first, raised.dtype)
        offsets, counts = (
            tf.reshape(tf.linalg.matvec(tf.reshape(raised, (-1, columns)), one), (*lengths(raised)[:3], 1))
            for one in (side * (keys - middle), side)
        )
        beside = raised[..., first : first + size] * tf.abs(queries - keys[first : first + size])
        return offsets - (queries - middle) * counts + tf.reduce_sum(beside, axis=-1, keepdims=True)

    def summed(self, share: Any, raised: Any) -> Any:
        if raised.shape[:2].as_list() != [1, 1]:
            return tf.matmul(share, raised)
        # Quicker of matrices than of batches.
        return tf.matmul(share[0, 0], raised[0, 0])[None, None]

    def top(self, weights: Any, count: int) -> tuple[Any, Any, Any]:
        columns = lengths(weights)[3]
        if under_xla() or (isinstance(columns, int) and columns < SHORT * runs_for(count)):
            return super().top(weights, count)
        lead, shape = tf.shape(weights)[:3], weights.shape[:3]

        def laid_out(rows: Any) -> Any:
            found = tf.reshape(rows, tf.concat([lead, tf.shape(rows)[1:]], axis=0))
            return tf.ensure_shape(found, (*shape, rows.shape[1]))

        values, places, peaks = largest_of(tf.reshape(weights, (-1, columns)), count)
        covered = isinstance(columns, int) and columns % peaks.shape[1] == 0
        return laid_out(values), laid_out(places), laid_out(peaks) if covered else None

    def picked(self, rows: Any, places: Any) -> Any:
        found = picked(tf.reshape(rows, (-1, lengths(rows)[3])), tf.reshape(places, (-1, lengths(places)[3])))
        return tf.ensure_shape(tf.reshape(found, tf.shape(places)), places.shape)


def largest_of(rows: Any, count: int, depth: int = 2) -> tuple[Any, Any, Any]:
    """The largest numbers of each row (R, s), largest first, their places, and the maxima (R, runs) of runs of neighbours.

    The largest so many lie in as many runs, those with the largest maxima. These are then searched in the same way: `depth` times
    where it is not known how long they are, after which they are short.
    """
    columns = lengths(rows)[1]
    size = largest(columns // runs_for(count), 1)
    if size < SHORT if isinstance(size, int) else depth == 0:
        some = smallest(count, columns)
        fill = ((0, 0), (0, count - some))
        return *(tf.ensure_shape(tf.pad(found, fill), (None, count)) for found in tf.math.top_k(rows, some)), None
    runs = columns // size
    covered = isinstance(columns, int) and runs * size == columns
    pieces = tf.reshape(rows if covered else rows[:, : runs * size], (-1, size))
    peaks = tf.reshape(tf.reduce_max(pieces, axis=1), (-1, runs))
    chosen = tf.math.top_k(peaks, smallest(count, runs), sorted=False).indices
    # In the order of the keys, so that the first of equals comes first.
    chosen = tf.sort(chosen, axis=1)
    some = lengths(chosen)[1]
    found = tf.reshape(tf.gather(pieces, chosen + begins(peaks)), (-1, some * size))
    if not covered:
        found = tf.concat([found, rows[:, runs * size :]], axis=1)
    values, order, _ = largest_of(found, count, depth - 1)
    run = order // size
    places = picked(chosen, tf.minimum(run, some - 1)) * size + order % size
    # What lies in no run stands behind those that were chosen.
    return values, places if covered else tf.where(run < some, places, order + (runs - some) * size), peaks


def runs_for(count: int) -> int:
    """Into how many runs to cut a row of which so many numbers are sought."""
    return max(RUNS, EACH * count)


def picked(rows: Any, places: Any) -> Any:
    """The numbers of rows (R, s) at places (R, c): from one long row, which is quicker than from each."""
    return tf.gather(tf.reshape(rows, [-1]), places + begins(rows))


def begins(rows: Any) -> Any:
    """MaskFunction each of the rows (R, s) begins among all numbers, (R, 1)."""
    count, columns = lengths(rows)
    return tf.range(count)[:, None] * columns
