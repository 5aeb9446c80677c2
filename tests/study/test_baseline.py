"""The linear models: their features, the choice of the penalty, and that they learn."""

import collections

import numpy as np
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from limelight.study import baselines

pytestmark = pytest.mark.backend_free

TEXTS = [
    "A good film",
    "good , GOOD fun",
    "not a good film",
    "a bad film",
    "bad , bad fun",
    "not bad",
    "so dull",
    "so good",
]
LABELS = np.array([1, 1, 0, 0, 0, 1, 0, 1])
UNSEEN, UNSEEN_LABELS = ["good fun", "dull film", "unheard of", "not a bad film"], np.array([1, 0, 0, 1])


def split(texts):
    return [tuple(text.split()) for text in texts]


def test_text_baseline_against_scikit_learn():
    predict, summary = baselines.fit_text_baseline(split(TEXTS), LABELS, split(UNSEEN), UNSEEN_LABELS)

    features = TfidfVectorizer(ngram_range=(1, 2), token_pattern=r"\S+", sublinear_tf=True)
    seen, unseen = features.fit_transform(TEXTS), features.transform(UNSEEN)
    losses = {}
    for inverse_penalty in baselines.INVERSE_PENALTIES:
        model = LogisticRegression(C=inverse_penalty, max_iter=500).fit(seen, LABELS)
        losses[inverse_penalty] = -np.log(model.predict_proba(unseen)[np.arange(4), UNSEEN_LABELS]).mean()
    best = min(losses, key=losses.__getitem__)
    model = LogisticRegression(C=best, max_iter=500).fit(seen, LABELS)

    assert summary["inverse_penalty"] == best
    assert summary["validation"]["loss"] == pytest.approx(losses[best])
    assert summary["validation"]["accuracy"] == (model.predict(unseen) == UNSEEN_LABELS).mean()
    assert summary["parameters"] == seen.shape[1] + 1
    np.testing.assert_allclose(predict(split(UNSEEN)), model.predict_proba(unseen), rtol=1e-6)


def test_the_most_frequent_features_are_kept_and_the_memory_bounded(random, monkeypatch):
    # Several chunks and several hundred features, against a loop over dictionaries.
    monkeypatch.setattr(baselines, "CHUNK", 7)
    texts = [tuple(random.choice(list("abcdefgh"), size=random.integers(1, 9))) for _ in range(31)]
    every = [set(baselines._words_and_pairs(text)) for text in texts]
    frequency = collections.Counter(feature for features in every for feature in features)
    features = baselines.HashedTfidf(20)
    rows = features.fit_transform(texts)
    assert rows.shape == (31, 20)
    kept = sorted(frequency.values(), reverse=True)[:20]
    assert sorted(np.diff(rows.tocsc().indptr).tolist(), reverse=True) == kept
    assert (features.transform(texts) != rows).nnz == 0
    whole = baselines.HashedTfidf(10_000).fit_transform(texts)
    assert whole.shape == (31, len(frequency))
    reference = TfidfVectorizer(analyzer=baselines._words_and_pairs, sublinear_tf=True).fit_transform(texts)
    np.testing.assert_allclose((whole @ whole.T).toarray(), (reference @ reference.T).toarray(), rtol=1e-12)


def test_series_baseline_separates_series_of_any_lengths(random):
    def wave(kind):
        steps = random.normal(size=(random.integers(1, 11), 2), scale=0.1)
        return (steps + 2.0 * (kind == np.arange(1, 3))).astype("float32")

    labels = np.arange(30) % 3
    series = [wave(kind) for kind in labels]
    predict, summary = baselines.fit_series_baseline(series[:21], labels[:21], series[21:], labels[21:])
    assert summary["validation"]["accuracy"] == 1.0
    assert summary["parameters"] == 3 * (7 * 2 + 1)
    probabilities = predict(series)
    np.testing.assert_array_equal(probabilities.argmax(1), labels)
    np.testing.assert_allclose(probabilities.sum(1), 1)


def test_series_summary():
    steps = np.array([[1.0], [2.0], [4.0], [8.0]])
    # Thirds of four steps: two, one and one.
    expected = [15 / 4, steps.std(), 1, 8, 1.5, 4, 8]
    np.testing.assert_allclose(baselines._summarize_series([steps, steps[:1]]), [expected, [1, 0, 1, 1, 1, 1, 1]])
