"""Batches of similar length: every example once, few shapes, outputs restored to the original order."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from limelight.data import LengthBatches, Tokenizer, pad, padded_length

pytestmark = pytest.mark.backend_free


def ids(random, lengths):
    return [random.integers(1, 1000, size=length) for length in lengths]


def test_the_grid_of_lengths():
    grid = [16, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048]
    for length in range(2049):
        assert padded_length(length) == next(point for point in grid if point >= length)
    assert padded_length(100_000) == 131_072
    assert padded_length(98_304) == 98_304


def test_pad_against_a_loop(random):
    sequences = ids(random, [3, 0, 7, 5])
    values, mask = pad(sequences, 11)
    assert (values.dtype, values.shape, mask.dtype, mask.shape) == (np.int32, (4, 11), bool, (4, 11))
    for row, sequence in enumerate(sequences):
        for step in range(11):
            inside = step < len(sequence)
            assert mask[row, step] == inside
            assert values[row, step] == (sequence[step] if inside else 0)


def test_pad_series(random):
    sequences = [random.standard_normal((length, 3)) for length in (2, 5)]
    values, mask = pad(sequences, 7)
    assert (values.dtype, values.shape) == (np.float32, (2, 7, 3))
    np.testing.assert_array_equal(values[0, :2], sequences[0].astype(np.float32))
    assert not values[0, 2:].any()
    assert mask.sum(axis=1).tolist() == [2, 5]


def test_pad_refuses_sequences_that_do_not_fit():
    with pytest.raises(ValueError, match=r"at least the longest length, 5. Received: 4"):
        pad([np.arange(5)], 4)
    with pytest.raises(ValueError, match=r"at least one sequence. Received: none"):
        pad([], 4)


@settings(deadline=None)
@given(
    st.lists(st.integers(0, 150), max_size=60),
    st.integers(1, 17),
    st.none() | st.integers(0, 5),
    st.integers(0, 3),
)
def test_every_example_occurs_once_and_is_restored(lengths, batch_size, seed, epoch):
    sequences = [np.full(length, index + 1) for index, length in enumerate(lengths)]
    batches = LengthBatches(sequences, np.arange(len(lengths)) * 7, batch_size=batch_size, shuffle_seed=seed)
    plan = batches.plan(epoch)
    seen = [index for planned in plan for index in planned.indices.tolist()]
    assert sorted(seen) == list(range(len(lengths)))
    assert len(plan) == len(batches)
    assert sum(len(planned.indices) != batch_size for planned in plan) <= 1
    outputs = []
    for planned, batch in zip(plan, batches.batches(epoch), strict=True):
        assert planned.padded_length == max(padded_length(lengths[index]) for index in planned.indices)
        assert batch.values.shape == (len(planned.indices), planned.padded_length)
        for row, index in enumerate(planned.indices):
            assert batch.mask[row].sum() == lengths[index]
            assert set(batch.values[row][batch.mask[row]].tolist()) <= {index + 1}
            assert batch.labels[row] == 7 * index
        outputs.append(np.stack([planned.indices * 2.0, planned.indices * 3.0], axis=1))
    if lengths:
        expected = np.stack([np.arange(len(lengths)) * 2.0, np.arange(len(lengths)) * 3.0], axis=1)
        np.testing.assert_array_equal(batches.restore(outputs, epoch), expected)


def test_few_shapes_even_when_shuffled(random):
    lengths = random.integers(1, 60, size=997)
    shapes = set()
    batches = LengthBatches(ids(random, lengths), batch_size=32, shuffle_seed=3)
    for epoch in range(5):
        shapes |= {batch.values.shape for batch in batches.batches(epoch)}
    # Four lengths of the grid, and the one batch that is not full.
    assert {length for _, length in shapes} == {16, 32, 48, 64}
    assert len({shape for shape in shapes if shape[0] == 32}) == 4
    assert {shape[0] for shape in shapes} == {32, 997 % 32}


def test_batches_hold_examples_of_similar_length(random):
    lengths = random.integers(1, 200, size=499)
    plan = LengthBatches(ids(random, lengths), batch_size=8, shuffle_seed=1).plan()
    mixed = [planned for planned in plan if len({padded_length(lengths[i]) for i in planned.indices}) > 1]
    # Only a batch at a border between two lengths of the grid holds both.
    assert len(mixed) <= len({padded_length(length) for length in lengths}) - 1


def test_epochs_differ_and_are_reproducible(random):
    sequences = ids(random, random.integers(1, 60, size=101))
    shuffled = LengthBatches(sequences, batch_size=7, shuffle_seed=5)

    def flat(batches, epoch):
        return [planned.indices.tolist() for planned in batches.plan(epoch)]

    assert flat(shuffled, 0) == flat(LengthBatches(sequences, batch_size=7, shuffle_seed=5), 0)
    assert flat(shuffled, 0) != flat(shuffled, 1)
    assert flat(shuffled, 0) != flat(LengthBatches(sequences, batch_size=7, shuffle_seed=6), 0)
    assert {frozenset(cut) for cut in flat(shuffled, 0)} != {frozenset(cut) for cut in flat(shuffled, 1)}


def test_without_a_seed_the_order_is_from_short_to_long():
    lengths = [40, 3, 100, 17, 5, 41, 2]
    plan = LengthBatches([np.ones(length, int) for length in lengths], batch_size=2).plan()
    assert [planned.indices.tolist() for planned in plan] == [[1, 4], [6, 3], [0, 5], [2]]
    assert [planned.padded_length for planned in plan] == [16, 32, 48, 128]


def test_rows_of_different_shapes_are_restored_as_a_list():
    batches = LengthBatches([np.ones(length, int) for length in (40, 3, 17)], batch_size=1)
    outputs = [np.full((1, planned.padded_length), planned.indices[0]) for planned in batches.plan()]
    assert [(row.shape, row[0]) for row in batches.rows(outputs)] == [((48,), 0), ((16,), 1), ((32,), 2)]
    with pytest.raises(ValueError, match=r"outputs of one shape.*Use `rows`"):
        batches.restore(outputs)
    with pytest.raises(
        ValueError, match=r"one array for each of the 3 batches.*Received: 2 arrays of 2 rows for 3 examples"
    ):
        batches.rows(outputs[:2])


def test_encodings_and_series_are_inputs(random):
    encodings = Tokenizer(["a", "b"]).encode(["a b a", "b"])
    batch = next(iter(LengthBatches(encodings, [1, 0], batch_size=2)))
    assert batch.values[:, :4].tolist() == [[2, 3, 2, 0], [3, 0, 0, 0]]
    assert batch.labels.tolist() == [1, 0]
    series = [random.standard_normal((length, 5)).astype(np.float32) for length in (7, 11, 13)]
    batch = next(iter(LengthBatches(series, batch_size=3)))
    assert batch.labels is None
    assert batch.values.shape == (3, 16, 5)
    np.testing.assert_array_equal(batch.values[2, :13], series[2])


def test_no_inputs_make_no_batches():
    batches = LengthBatches([], batch_size=3)
    assert (len(batches), list(batches), batches.restore([]).shape) == (0, [], (0,))


@pytest.mark.parametrize(
    ("inputs", "labels", "batch_size", "message"),
    [
        ([[1]], None, 0, "`batch_size` must be positive. Received: 0"),
        ([[1], [2]], [0], 1, "one label for each input. Received: 2 inputs, 1 labels"),
        (
            [np.ones((3, 2)), np.ones((3, 5))],
            None,
            1,
            r"with equal channels. Received: shapes \[\(2,\), \(5,\)\] after the length",
        ),
        ([[1], np.ones((3, 5))], None, 1, "all series"),
        ([np.ones((3, 2, 2))], None, 1, "must all be ids"),
        ([3, 4], None, 1, "must all be ids"),
        ([([5, 6, 7], [1, 2])], None, 1, "one sequence for each example.*second sequences as `labels`"),
        ([np.array([0.5, 1.5])], None, 1, "of one axis must be integer ids"),
    ],
)
def test_inputs_that_cannot_be_batched_are_refused(inputs, labels, batch_size, message):
    with pytest.raises(ValueError, match=message):
        LengthBatches(inputs, labels, batch_size=batch_size)


def test_labels_that_are_sequences_against_a_loop(random):
    sources, targets = ids(random, [3, 20, 1, 8]), ids(random, [5, 2, 17, 4])
    batches = LengthBatches(sources, targets, batch_size=3, shuffle_seed=1)
    seen = []
    for values, mask, labels, indices, label_mask in batches:
        assert values.shape == labels.shape == mask.shape == label_mask.shape
        assert values.shape[1] == padded_length(max(max(len(sources[i]), len(targets[i])) for i in indices))
        for row, index in enumerate(indices):
            assert values[row, mask[row]].tolist() == sources[index].tolist()
            assert labels[row, label_mask[row]].tolist() == targets[index].tolist()
            assert not labels[row, len(targets[index]) :].any()
            assert not label_mask[row, len(targets[index]) :].any()
        seen.extend(indices.tolist())
    assert sorted(seen) == [0, 1, 2, 3]


def test_an_array_of_labels_is_batched_as_it_is(random):
    one_hot = np.eye(3)[[0, 2, 1]]
    batch = next(iter(LengthBatches(ids(random, [2, 3, 4]), one_hot, batch_size=3)))
    np.testing.assert_array_equal(batch.labels, one_hot[batch.indices])
    assert batch.label_mask is None


def test_labels_of_different_kinds_are_refused(random):
    with pytest.raises(ValueError, match=r"`labels` must all be ids \(length,\), or all series"):
        LengthBatches(ids(random, [2, 3]), [[1, 2], [[1.0], [2.0]]], batch_size=2)
