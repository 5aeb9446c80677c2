"""The named data sets, downloaded, against numbers counted independently."""

import functools
import re

import numpy as np
import pytest

from limelight import data

pytestmark = [
    pytest.mark.backend_free,
    pytest.mark.slow,
    pytest.mark.subprocess,
    pytest.mark.usefixtures("fetched"),
]


load = functools.cache(data.load)


def counts(dataset):
    return data.describe(dataset)["classes"]


def repairs(dataset):
    return [str(repair) for repair in dataset.repairs]


def test_movie_reviews():
    dataset = load("movie-reviews")
    assert counts(dataset) == {"negative": 5160, "positive": 5152}
    assert repairs(dataset) == ["rows of the archive left out that have no label: 293"]
    assert dataset.inputs[2] == "Effective but too tepid biopic"
    assert dataset.classes[dataset.labels[0]] == "positive"
    assert dataset.inputs[5152] == "Simplistic, silly and tedious."
    assert dataset.classes[dataset.labels[5152]] == "negative"
    assert "vaderSentiment==3.3.2" in dataset.source
    parts = data.split(dataset)
    assert [len(parts.train), len(parts.validation), len(parts.test)] == [7218, 1031, 2063]
    assert parts.fingerprint == "bbc22c95bb79d52c6c6046039c591447"


def test_bbc_news():
    dataset = load("bbc-news")
    assert len(dataset) == 2124
    assert counts(dataset) == {"business": 503, "entertainment": 369, "politics": 403, "sports": 502, "tech": 347}
    assert repairs(dataset) == [
        "files read as Windows-1252 that are not UTF-8: 1",
        "duplicate texts dropped: 98",
        "texts dropped that differ from another only in case or white space: 3",
        "texts that differ from an earlier one only in punctuation, kept in one part with it "
        "(the first: 'Nasdaq planning $100m-share sale\\n\\nThe o…'): 2",
    ]
    assert dataset.inputs[0].startswith("Ad sales boost Time Warner profit\n\nQuarterly profits at US media giant")
    assert sum("£" in text for text in dataset.inputs) > 100
    assert not any("\ufffd" in text for text in dataset.inputs)
    assert data.split(dataset).fingerprint == "1e08ca1b9b88c1825a3f4f2b39562d91"


def test_japanese_vowels():
    dataset = load("japanese-vowels")
    assert (dataset.kind, len(dataset), dataset.test.sum(), dataset.repairs) == ("series", 640, 370, ())
    assert dataset.classes == tuple("123456789")
    # Thirty training utterances of each speaker; 24 to 88 in the test part (the archive's own description).
    assert np.bincount(dataset.labels[~dataset.test]).tolist() == [30] * 9
    in_test = np.bincount(dataset.labels[dataset.test])
    assert (in_test.min(), in_test.max(), in_test.sum()) == (24, 88, 370)
    lengths = [len(series) for series in dataset.inputs]
    assert (min(lengths), max(lengths)) == (7, 29)
    assert {series.shape[1] for series in dataset.inputs} == {12}
    assert {series.dtype for series in dataset.inputs} == {np.dtype(np.float32)}
    np.testing.assert_allclose(dataset.inputs[0][:3, 0], [1.860936, 1.891651, 1.939205], rtol=1e-6)
    np.testing.assert_allclose(dataset.inputs[0][0, :2], [1.860936, -0.207383], rtol=1e-6)
    assert all(np.isfinite(series).all() for series in dataset.inputs)
    parts = data.split(dataset)
    assert len(parts.test) == 370
    assert set(dataset.labels[parts.train]) == set(range(9))


@pytest.mark.parametrize(
    ("name", "train", "test", "classes", "fingerprint"),
    [
        ("reuters-r8", 5485, 2189, 8, "93c75feb721bfadd2deea8aec6eec150"),
        ("reuters-r52", 6532, 2568, 52, "da3ba16dc7acb94018c0c1000e0747f2"),
        ("20newsgroups", 11_293, 7528, 20, "4b3e90d71847395622e72efa767b45ca"),
        ("news-sports", 1197, 796, 2, "6299b6f5319e9cde037446838fa43e39"),
    ],
)
def test_topics_with_a_published_test(name, train, test, classes, fingerprint):
    dataset = load(name)
    assert (dataset.test.sum(), len(dataset.classes)) == (test, classes)
    # Each text that left the train part is counted.
    dropped = sum(repair.count for repair in dataset.repairs if " dropped" in repair.what)
    assert (~dataset.test).sum() + dropped == train
    assert dropped <= 0.02 * train
    trained = {text for text, is_test in zip(dataset.inputs, dataset.test, strict=True) if not is_test}
    assert len(trained) == (~dataset.test).sum()
    assert not trained & {text for text, is_test in zip(dataset.inputs, dataset.test, strict=True) if is_test}
    parts = data.split(dataset)
    assert (parts.fingerprint, len(parts.test)) == (fingerprint, test)


def test_the_first_texts_of_topics():
    dataset = load("reuters-r8")
    assert dataset.inputs[0].startswith("champion products ch approves stock split champion products inc said")
    assert dataset.classes[dataset.labels[0]] == "earn"
    assert counts(load("news-sports")) == {"rec.sport.baseball": 994, "rec.sport.hockey": 999}


@pytest.mark.parametrize(
    ("name", "train", "test", "length", "accuracy"),
    [
        ("gun-point", 50, 150, 150, 0.913),
        ("italy-power-demand", 67, 1029, 24, 0.955),
        ("arrow-head", 36, 175, 251, 0.800),
    ],
)
def test_series_with_a_published_test(name, train, test, length, accuracy):
    """The accuracy of the nearest neighbour was computed from the archive independently."""
    dataset = load(name)
    assert (dataset.kind, (~dataset.test).sum(), dataset.test.sum()) == ("series", train, test)
    series = np.array(dataset.inputs)[..., 0]
    assert series.shape == (train + test, length)
    distances = ((series[train:, None] - series[None, :train]) ** 2).sum(axis=-1)
    assert np.mean(dataset.labels[distances.argmin(axis=1)] == dataset.labels[train:]) == pytest.approx(
        accuracy, abs=5e-4
    )


def test_pronunciations():
    pairs = load("pronunciations")
    assert repr(pairs) == "Pairs('pronunciations', 126,052 sources, 134,860 targets)"
    # 135,166 entries, of which some differ only in stress.
    assert sum(repair.count for repair in pairs.repairs) + len(pairs) == 135_166
    words = dict(zip(pairs.sources, pairs.targets, strict=True))
    assert words["tomato"] == ("T AH M EY T OW", "T AH M AA T OW")
    assert words["aalborg"] == ("AO L B AO R G", "AA L B AO R G")
    assert len({phone for targets in pairs.targets for target in targets for phone in target.split()}) == 39
    assert data.split(pairs).fingerprint == "6ffd2b7fc275df4aebf2c98a751a90e7"


def test_greek_english():
    pairs = load("greek-english")
    assert pairs.sources[0] == "Βίβλος γενέσεως Ἰησοῦ χριστοῦ υἱοῦ Δαυὶδ υἱοῦ Ἀβραάμ"
    english = "This is the record of the genealogy of Jesus Christ the son of David the son of Abraham"
    assert pairs.targets[0] == (english,)
    assert pairs.alignments[0][:5].tolist() == [[0, 0], [0, 1], [0, 2], [0, 3], [1, 4]]
    assert repairs(pairs) == [
        "links between words of different verses left out: 454",
        "verses without a link left out: 24",
        "duplicate pairs dropped: 21",
        "targets that became further references of an equal source: 2",
    ]
    assert (len(pairs), sum(map(len, pairs.alignments))) == (7896, 189_033)
    words = {word for (target, *_) in pairs.targets for word in target.split()}
    assert {word for word in words if re.search("[,.?!“”:;]", word)} == {"12,000", "144,000", "1,260", "1,600"}
    assert data.split(pairs).fingerprint == "0234666a016d32191a9787f301f3d145"


def test_alignment_error_of_the_diagonal_is_the_published_one():
    """0.731 was computed from the archive independently. Misread links or words would change it."""
    pairs = load("greek-english")
    correct = total = 0
    for source, (target, *_), links in zip(pairs.sources, pairs.targets, pairs.alignments, strict=True):
        length, count = len(source.split()), len(target.split())
        assert (links < (length, count)).all()
        diagonal = {(min(length - 1, round((word + 0.5) * length / count - 0.5)), word) for word in range(count)}
        gold = set(map(tuple, links.tolist()))
        correct += 2 * len(diagonal & gold)
        total += len(diagonal) + len(gold)
    assert 1 - correct / total == pytest.approx(0.731, abs=1e-3)


@pytest.mark.parametrize(
    ("name", "count", "season", "horizon", "first", "error"),
    [
        ("tourism-monthly", 366, 12, 24, 1149.87, 22.56),
        ("tourism-quarterly", 427, 4, 8, 3592.55, 16.46),
        ("tourism-yearly", 518, 1, 4, 25_092.2284, 23.61),
        ("m3-monthly", 1428, 12, 18, 2640, None),
        ("m3-quarterly", 756, 4, 8, 3142.63, None),
        ("m3-yearly", 645, 1, 6, 940.66, None),
        ("m3-other", 174, 1, 8, 3060.42, None),
    ],
)
def test_competitions(name, count, season, horizon, first, error):
    panel = load(name)
    assert (len(panel), panel.season, panel.horizon, panel.repairs) == (count, season, horizon, ())
    assert panel.values[0][0] == np.float32(first)
    assert panel.times[0].tolist() == list(range(len(panel.values[0])))
    assert {future.shape for future in panel.test} == {(horizon,)}
    if error is not None:
        # The error of the seasonal naive forecast, in percent of each value, was computed independently.
        forecasts = [values[-season:][np.arange(horizon) % season] for values in panel.values]
        errors = np.abs(np.array(forecasts, float) - panel.test) / np.array(panel.test, float)
        assert 100 * errors.mean() == pytest.approx(error, abs=5e-3)


def test_yearly_naive_error_of_m3_is_the_published_one():
    """17.88 % (Makridakis and Hibon 2000)."""
    panel = load("m3-yearly")
    last, future = np.array([values[-1] for values in panel.values], float)[:, None], np.array(panel.test, float)
    assert 100 * np.mean(2 * np.abs(last - future) / (last + future)) == pytest.approx(17.88, abs=5e-3)


def test_nearest_neighbour_accuracy_on_japanese_vowels_is_the_published_one():
    """Published: 352 of 370 for series stretched to one length. Misread channels, lengths or labels would change it."""
    dataset = load("japanese-vowels")
    steps = np.linspace(0, 1, 29)
    stretched = [
        [np.interp(steps, np.linspace(0, 1, len(series)), channel) for channel in series.T] for series in dataset.inputs
    ]
    flat = np.array(stretched).reshape(len(dataset), -1)
    train, test = np.flatnonzero(~dataset.test), np.flatnonzero(dataset.test)
    distances = ((flat[test, None] - flat[None, train]) ** 2).sum(axis=-1)
    nearest = train[distances.argmin(axis=1)]
    assert np.mean(dataset.labels[nearest] == dataset.labels[test]) == pytest.approx(352 / 370, abs=0.003)


def test_linear_accuracy_on_movie_reviews_is_near_the_published_one():
    """78.15 % in ten folds was computed from the archive independently; one split must come near."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.pipeline import make_pipeline
    from sklearn.svm import LinearSVC

    dataset = load("movie-reviews")
    parts = data.split(dataset, validation=0, test=0.1)
    model = make_pipeline(TfidfVectorizer(ngram_range=(1, 2)), LinearSVC())
    model.fit(*dataset.take(parts.train))
    assert model.score(*dataset.take(parts.test)) == pytest.approx(0.7815, abs=0.03)


def test_the_vocabulary_covers_the_test_part():
    dataset = load("movie-reviews")
    parts = data.split(dataset)
    tokenizer = data.Tokenizer.train(dataset.take(parts.train)[0])
    encodings = tokenizer.encode(dataset.take(parts.test)[0])
    ids = np.concatenate([encoding.ids for encoding in encodings])
    assert ids.max() < tokenizer.size <= 20_000
    assert np.mean(ids == 1) < 0.1
    assert max(len(encoding) for encoding in encodings) < 96
