"""The split by content is the same for everybody, whatever rows are added, removed or reordered."""

import hashlib

import numpy as np
import pytest

from limelight.data import DataError, Dataset, split

pytestmark = pytest.mark.backend_free


def texts_of(count, start=0):
    return tuple(f"review number {i}" for i in range(start, start + count))


def dataset_of(texts, classes=2, **keywords):
    labels = np.array([sum(text.encode()) % classes for text in texts])
    return Dataset("d", "text", tuple(texts), labels, tuple("abcdefghij"[:classes]), **keywords)


def part_of(dataset, parts):
    part_names = {}
    for name in ("train", "validation", "test"):
        for index in getattr(parts, name):
            part_names[dataset.inputs[index]] = name
    return part_names


def position(content, person=b"limelight-split"):
    return int.from_bytes(hashlib.blake2b(content, digest_size=16, person=person).digest()[:8], "big") / 2**64


def test_the_hash_of_an_example_decides_its_part():
    dataset = dataset_of(texts_of(499))
    parts = split(dataset, validation=0.13, test=0.29)
    for name, low, high in (("test", 0, 0.29), ("validation", 0.29, 0.42), ("train", 0.42, 1)):
        expected = [i for i, text in enumerate(dataset.inputs) if low <= position(text.encode()) < high]
        assert getattr(parts, name).tolist() == expected
    assert sum(len(part) for part in (parts.train, parts.validation, parts.test)) == 499


def test_the_split_never_changes():
    """Fixed values: a change of the hash would silently change every split that was ever reported."""
    parts = split(dataset_of(texts_of(50)))
    assert parts.test.tolist() == [3, 5, 6, 10, 13, 20, 23, 28, 29, 31, 32, 34, 35, 37, 43, 45, 49]
    assert parts.validation.tolist() == [2, 9, 14, 17, 19, 22, 24, 26, 44, 48]
    assert parts.fingerprint == "9c373b874d98fd5984a1801bb2e7d578"


def test_the_shares_are_met_on_average():
    parts = split(dataset_of(texts_of(20_000)), validation=0.1, test=0.2)
    # Four standard deviations of a binomial share.
    assert len(parts.test) / 20_000 == pytest.approx(0.2, abs=4 * np.sqrt(0.2 * 0.8 / 20_000))
    assert len(parts.validation) / 20_000 == pytest.approx(0.1, abs=4 * np.sqrt(0.1 * 0.9 / 20_000))


def test_added_removed_and_reordered_rows_move_no_other(random):
    before = dataset_of(texts_of(200))
    placed = part_of(before, split(before))
    mixed = [*texts_of(200), *texts_of(100, start=1000)]
    random.shuffle(mixed)
    after = dataset_of(mixed[37:])
    for text, name in part_of(after, split(after)).items():
        assert placed.get(text, name) == name


def test_a_larger_validation_part_leaves_the_test_part_alone():
    dataset = dataset_of(texts_of(300))
    small, large = split(dataset, validation=0.05), split(dataset, validation=0.4)
    assert small.test.tolist() == large.test.tolist()
    assert set(small.validation) < set(large.validation)


def test_the_fingerprint_depends_on_content_labels_and_parts_but_not_on_order(random):
    texts = list(texts_of(120))
    first = split(dataset_of(texts)).fingerprint
    random.shuffle(texts)
    shuffled = dataset_of(texts)
    assert split(shuffled).fingerprint == first
    assert split(shuffled, test=0.25).fingerprint != first
    assert split(dataset_of(texts[:-1])).fingerprint != first
    labels = shuffled.labels.copy()
    labels[0] = 1 - labels[0]
    assert split(Dataset("d", "text", shuffled.inputs, labels, ("a", "b"))).fingerprint != first
    renamed = Dataset("d", "text", shuffled.inputs, shuffled.labels, ("a", "c"))
    assert split(renamed).fingerprint != first
    assert len(first) == 32
    int(first, 16)


def test_a_published_test_part_is_the_test_part():
    texts = texts_of(200)
    published = np.arange(200) % 5 == 0
    parts = split(dataset_of(texts, test=published), validation=0.2, test=0.9)
    assert parts.test.tolist() == np.flatnonzero(published).tolist()
    rest = np.flatnonzero(~published)
    assert parts.validation.tolist() == [i for i in rest if position(texts[i].encode()) < 0.2]
    assert sorted([*parts.train, *parts.validation]) == rest.tolist()


def test_series_are_split_by_shape_and_values(random):
    inputs = [random.standard_normal((3 + i % 4, 2)).astype(np.float32) for i in range(80)]
    labels = np.arange(80) % 2
    parts = split(Dataset("d", "series", tuple(inputs), labels, ("a", "b")))
    expected = [i for i, x in enumerate(inputs) if position(repr(x.shape).encode() + x.tobytes()) < 0.2]
    assert parts.test.tolist() == expected
    strided = tuple(np.asfortranarray(x.astype(np.float64)) for x in inputs)
    assert split(Dataset("d", "series", strided, labels, ("a", "b"))).fingerprint == parts.fingerprint


def test_no_validation_and_no_test():
    parts = split(dataset_of(texts_of(30)), validation=0, test=0)
    assert (len(parts.train), len(parts.validation), len(parts.test)) == (30, 0, 0)


@pytest.mark.parametrize("shares", [(-0.1, 0.2), (0.1, 1.0), (0.5, 0.5), (float("nan"), 0.2)])
def test_impossible_shares(shares):
    with pytest.raises(ValueError, match=r"must be shares in .0, 1. that leave"):
        split(dataset_of(texts_of(30)), validation=shares[0], test=shares[1])


def test_a_class_missing_from_the_train_part():
    in_test = [text for text in texts_of(100) if position(text.encode()) < 0.2][:2]
    others = [text for text in texts_of(100) if position(text.encode()) >= 0.2]
    labels = np.array([1, 1, *(0 for _ in others)])
    with pytest.raises(DataError, match=r"Class 'rare' has none \(its 2 examples are all in other parts\)"):
        split(Dataset("d", "text", (*in_test, *others), labels, ("common", "rare")))


def test_an_empty_part():
    texts = [text for text in texts_of(100) if position(text.encode()) >= 0.2][:20]
    with pytest.raises(DataError, match=r"The test part must hold at least one example. 20 examples are too few"):
        split(dataset_of(texts), validation=0)


def test_the_order_of_the_rows_has_its_own_hash():
    texts = texts_of(60)
    one, other = split(dataset_of(texts)), split(dataset_of(texts[::-1]))
    assert one.fingerprint == other.fingerprint
    assert one.order != other.order
    assert one.order == split(dataset_of(list(texts))).order
