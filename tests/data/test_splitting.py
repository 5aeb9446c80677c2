"""The split by content gives each class its share, and is the same for everybody, in whatever order the rows are."""

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


def expected_parts(inputs, labels, classes, validation, test):
    """Place texts of letters, digits and spaces, or series: a loop over each class in the order of the hashes."""
    parts = {}
    for label, name in enumerate(classes):
        members = [i for i in range(len(inputs)) if labels[i] == label]
        contents = {
            i: x.encode() if isinstance(x, str) else repr(x.shape).encode() + x.tobytes() for i, x in enumerate(inputs)
        }
        members.sort(key=lambda i: position(contents[i]))
        digest = hashlib.blake2b(name.encode(), digest_size=16, person=b"limelight-class").digest()
        offset = (int.from_bytes(digest[:4], "big") + 0.5) / 2**32
        for rank, i in enumerate(members):
            p = (rank + offset) / len(members)
            parts[i] = "test" if p < test else "validation" if p < test + validation else "train"
    return parts


def assert_parts(parts, expected):
    for name in ("train", "validation", "test"):
        assert getattr(parts, name).tolist() == sorted(i for i in expected if expected[i] == name)


def test_the_rank_of_its_hash_in_its_class_decides_the_part_of_an_example():
    dataset = dataset_of(texts_of(499), classes=3)
    expected = expected_parts(dataset.inputs, dataset.labels, "abc", validation=0.13, test=0.29)
    assert len(expected) == 499
    assert_parts(split(dataset, validation=0.13, test=0.29), expected)


def test_the_split_never_changes():
    """Fixed values: a change of the hash would silently change every split that was ever reported."""
    parts = split(dataset_of(texts_of(50)))
    assert parts.test.tolist() == [3, 6, 20, 23, 28, 31, 34, 35, 43, 49]
    assert parts.validation.tolist() == [10, 13, 29, 32, 37]
    assert parts.fingerprint == "c2e764eef7a4386c395020bee2db66ba"


def test_every_class_has_its_share_in_each_part(random):
    sizes = (2, 3, 4, 5, 9, 31, 100, 203)
    labels = random.permutation(np.repeat(np.arange(len(sizes)), sizes))
    for validation, test in ((0.1, 0.2), (0.3, 0.3), (0.05, 0.5)):
        dataset = Dataset("d", "text", texts_of(len(labels)), labels, tuple("abcdefgh"))
        parts = split(dataset, validation=validation, test=test)
        for label, size in enumerate(sizes):
            counts = [int(np.sum(labels[getattr(parts, name)] == label)) for name in ("train", "validation", "test")]
            assert counts[0] >= 1
            for count, share in zip(counts, (1 - validation - test, validation, test), strict=True):
                assert abs(count - share * size) < 1 + 1e-9


@pytest.mark.parametrize("seed", range(20))
def test_rare_classes_are_in_the_train_part(seed):
    random = np.random.default_rng(seed)
    labels = random.permutation(np.repeat(np.arange(41), 2 + np.arange(41) % 5))
    texts = tuple(f"{number:.9f}" for number in random.random(len(labels)))
    parts = split(Dataset("d", "text", texts, labels, tuple(f"class {i:02}" for i in range(41))))
    assert set(labels[parts.train]) == set(range(41))


def test_texts_that_differ_in_punctuation_case_and_space_share_a_part():
    texts = texts_of(67)
    variants = [
        text for i, text in enumerate(texts) for text in (text, f"{text.upper()}!!", f" {text} … ", f"“{text}”")
    ]
    labels = np.repeat(np.arange(67) % 2, 4)
    parts = split(Dataset("d", "text", tuple(variants), labels, ("a", "b")), validation=0.2, test=0.3)
    for name in ("train", "validation", "test"):
        assert len(getattr(parts, name)) > 12
        assert {i // 4 for i in getattr(parts, name)} == {i // 4 for i in range(4 * 67) if i in getattr(parts, name)}
        assert len(getattr(parts, name)) == 4 * len({i // 4 for i in getattr(parts, name)})


def test_the_examples_of_a_group_share_a_part(random):
    names = [f"patient {i}" for i in range(29)]
    groups = tuple(random.choice([*names, None], size=353))
    groups = tuple(None if group is None else str(group) for group in groups)
    labels = random.integers(3, size=353)
    dataset = Dataset("d", "text", texts_of(353), labels, ("a", "b", "c"), groups=groups)
    parts = split(dataset, validation=0.2, test=0.3)
    part_names = {i: name for name in ("train", "validation", "test") for i in getattr(parts, name).tolist()}
    for group in names:
        assert len({part_names[i] for i in range(353) if groups[i] == group}) == 1
    assert min(len(getattr(parts, name)) for name in ("train", "validation", "test")) > 20
    assert set(labels[parts.train]) == {0, 1, 2}


@pytest.mark.parametrize("large", [0, 1])
def test_a_class_of_one_group_is_in_the_train_part(large):
    groups = tuple(f"g{i}" for i in range(40)) + ("rare",) * 3
    labels = np.array([0] * 40 + [1] * 3)
    for name in "abcdefgh":
        groups = (*groups[:40], *(name,) * 3)
        parts = split(
            Dataset("d", "text", texts_of(43), labels, ("common", "rare"), groups=groups), test=0.1 + 0.5 * large
        )
        assert {40, 41, 42} <= set(parts.train.tolist())


def test_groups_that_do_not_match_the_inputs():
    with pytest.raises(
        ValueError, match=r"`groups` must name a group, or be None, for each of the 9 inputs. Received: 2"
    ):
        dataset_of(texts_of(9), groups=("a", None))


def test_the_shares_are_met_on_average():
    parts = split(dataset_of(texts_of(20_000)), validation=0.1, test=0.2)
    # Four standard deviations of a binomial share.
    assert len(parts.test) / 20_000 == pytest.approx(0.2, abs=4 * np.sqrt(0.2 * 0.8 / 20_000))
    assert len(parts.validation) / 20_000 == pytest.approx(0.1, abs=4 * np.sqrt(0.1 * 0.9 / 20_000))


def test_reordered_rows_move_no_example(random):
    before = dataset_of(texts_of(200))
    placed = part_of(before, split(before))
    mixed = list(texts_of(200))
    random.shuffle(mixed)
    after = dataset_of(mixed)
    assert part_of(after, split(after)) == placed


def test_rows_of_one_class_move_no_example_of_another_and_few_of_their_own(random):
    before = dataset_of(texts_of(400))
    placed = part_of(before, split(before))
    added = [text for text in texts_of(100, start=1000) if sum(text.encode()) % 2 == 0]
    mixed = [*texts_of(400), *added]
    random.shuffle(mixed)
    after = dataset_of(mixed)
    moved = [text for text, name in part_of(after, split(after)).items() if placed.get(text, name) != name]
    assert all(sum(text.encode()) % 2 == 0 for text in moved)
    # Those between the old and the new limits: the added rows, 50 of 250, hardly change the distribution of the hashes.
    assert len(moved) <= 0.05 * 200


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
    rest_labels = [sum(texts[i].encode()) % 2 for i in rest]
    expected = expected_parts([texts[i] for i in rest], rest_labels, "ab", validation=0.2, test=0)
    assert parts.validation.tolist() == [rest[i] for i in sorted(expected) if expected[i] == "validation"]
    assert sorted([*parts.train, *parts.validation]) == rest.tolist()


def test_series_are_split_by_shape_and_values(random):
    inputs = [random.standard_normal((3 + i % 4, 2)).astype(np.float32) for i in range(80)]
    labels = np.arange(80) % 2
    parts = split(Dataset("d", "series", tuple(inputs), labels, ("a", "b")))
    assert_parts(parts, expected_parts(inputs, labels, "ab", validation=0.1, test=0.2))
    strided = tuple(np.asfortranarray(x.astype(np.float64)) for x in inputs)
    assert split(Dataset("d", "series", strided, labels, ("a", "b"))).fingerprint == parts.fingerprint


def test_no_validation_and_no_test():
    parts = split(dataset_of(texts_of(30)), validation=0, test=0)
    assert (len(parts.train), len(parts.validation), len(parts.test)) == (30, 0, 0)


@pytest.mark.parametrize("shares", [(-0.1, 0.2), (0.1, 1.0), (0.5, 0.5), (float("nan"), 0.2)])
def test_impossible_shares(shares):
    with pytest.raises(ValueError, match=r"must be shares in .0, 1. that leave"):
        split(dataset_of(texts_of(30)), validation=shares[0], test=shares[1])


def test_a_class_that_is_only_in_the_published_test_part():
    labels = np.array([1, 1, *(0 for _ in range(60))])
    published = np.arange(62) < 9
    with pytest.raises(DataError, match=r"Class 'rare' has none \(its 2 examples are all in the test part\)"):
        split(Dataset("d", "text", texts_of(62), labels, ("common", "rare"), test=published))


def test_an_empty_part():
    dataset = Dataset("d", "text", texts_of(4), np.array([0, 1, 0, 1]), ("a", "b"))
    with pytest.raises(DataError, match=r"The test part must hold at least one example. 4 examples are too few"):
        split(dataset, validation=0, test=0.01)


def test_the_order_of_the_rows_has_its_own_hash():
    texts = texts_of(60)
    one, other = split(dataset_of(texts)), split(dataset_of(texts[::-1]))
    assert one.fingerprint == other.fingerprint
    assert one.order != other.order
    assert one.order == split(dataset_of(list(texts))).order


def test_numeric_targets_are_split_in_bins_of_equally_many_examples(random):
    targets = np.exp(random.normal(size=500))
    dataset = Dataset("d", "text", texts_of(500), targets=targets)
    parts = split(dataset, validation=0.1, test=0.3)
    bins = np.argsort(np.argsort(targets)) // 50
    assert_parts(parts, expected_parts(dataset.inputs, bins, "0123456789", validation=0.1, test=0.3))
    for indices, share in ((parts.test, 15), (parts.validation, 5)):
        assert np.abs(np.bincount(bins[indices], minlength=10) - share).max() <= 1
    order = random.permutation(500)
    shuffled = Dataset("d", "text", tuple(dataset.inputs[i] for i in order), targets=targets[order])
    other = split(shuffled, validation=0.1, test=0.3)
    assert sorted(order[other.test]) == parts.test.tolist()
    assert other.fingerprint == parts.fingerprint
    changed = Dataset("d", "text", dataset.inputs, targets=np.where(np.arange(500) == 3, targets + 1e-9, targets))
    assert split(changed, validation=0.1, test=0.3).fingerprint != parts.fingerprint


@pytest.mark.parametrize("count", [2, 19, 20, 99, 101])
def test_few_numeric_targets_have_fewer_bins(count):
    parts = split(Dataset("d", "text", texts_of(count), targets=np.arange(count)), validation=0, test=0.5)
    assert abs(len(parts.test) - count / 2) <= max(1, count // 10) / 2 + 1


def test_what_has_no_split_is_refused():
    with pytest.raises(TypeError, match=r"takes a Dataset or Pairs. Received: list"):
        split([1, 2])
