"""Translation: search against enumeration of all targets, probabilities against teacher forcing, units, files."""

import itertools

import keras
import numpy as np
import pytest

from limelight import models
from limelight.models.translation import END, START, BeamSearch, build_translator
from limelight.models.translator import TranslationPairs, edit_distance
from limelight.models.units import Units

FAST = {
    "units": 6,
    "embedding_dim": 4,
    "epochs": 1,
    "training": {"epoch_steps": 1},
    "random_state": 2,
    "verbose": False,
}
SOURCES = ["jump", "jump twice", "walk left", "walk"] * 6
TARGETS = ["JUMP", "JUMP JUMP", "LEFT WALK", "WALK"] * 6


def translator(attention, size=7):
    """Return an untrained model whose probabilities differ much from each other."""
    keras.utils.set_random_seed(3)
    model = build_translator(9, size, attention=attention, units=5, embedding_dim=4, dropout=0.0)
    random = np.random.default_rng(5)
    for variable in model.trainable_variables:
        variable.assign(random.normal(size=variable.shape, scale=0.8))
    return model


def log_probabilities(model, source, targets):
    """Return the log probabilities of targets of one length by teacher forcing."""
    targets = np.array(targets)
    previous = np.concatenate([np.full((len(targets), 1), START), targets[:, :-1]], axis=1)
    inputs = {"source": np.repeat(source[None], len(targets), axis=0), "previous": previous}
    probabilities = keras.ops.convert_to_numpy(model(inputs, training=False))
    return np.log(np.take_along_axis(probabilities, targets[..., None], axis=-1)).sum((1, 2))


@pytest.mark.parametrize("attention", ["bahdanau", pytest.param("luong", marks=pytest.mark.full), None])
def test_a_wide_search_finds_the_best_of_all_targets(attention):
    model, max_length = translator(attention), 3
    sources = np.array([[4, 8, 5, 6], [7, 4, 0, 0]])
    found = BeamSearch(model, beam=24, max_length=max_length, length_penalty=0.7).predict_on_batch(sources)
    letters = range(END + 1, 7)
    of_length = {
        length: [(*body, END) for body in itertools.product(letters, repeat=length - 1)] for length in (1, 2, 3)
    }
    of_length[max_length] += list(itertools.product(letters, repeat=max_length))
    for row, source in enumerate((sources[0], sources[1, :2])):
        scores = {}
        for length, targets in of_length.items():
            values = log_probabilities(model, source, targets) / ((5 + length) / 6) ** 0.7
            scores |= dict(zip(targets, values, strict=True))
        best = sorted(scores, key=scores.get, reverse=True)[:5]
        received = [tuple(int(index) for index in ids if index) for ids in found["ids"][row][:5]]
        assert received == best
        np.testing.assert_allclose(found["scores"][row][:5], [scores[target] for target in best], rtol=1e-4)


def test_weights_sum_to_one_until_the_end_and_are_zero_at_padding():
    found = BeamSearch(translator("bahdanau"), beam=2, max_length=5).predict_on_batch(np.array([[7, 4, 0, 0]]))
    lengths = (np.asarray(found["ids"]) != 0).sum(-1)
    weights = np.asarray(found["weights"])
    assert not weights[..., 2:].any()
    expected = (np.arange(5) < lengths[..., None]).astype(float)
    np.testing.assert_allclose(weights.sum(-1), expected, atol=1e-5)


@pytest.mark.full
def test_the_coverage_penalty_by_hand():
    source, model = np.array([[4, 8, 5]]), translator("bahdanau")
    settings = {"beam": 3, "max_length": 4, "length_penalty": 0.0}
    found = BeamSearch(model, coverage_penalty=0.3, **settings).predict_on_batch(source)
    covered = np.log(np.minimum(np.asarray(found["weights"])[0].sum(1), 1)).sum(-1)
    np.testing.assert_allclose(found["scores"][0], found["log_probabilities"][0] + 0.3 * covered, rtol=1e-4)


@pytest.fixture(scope="module")
def fitted():
    return models.Translator(**FAST, max_length=8).fit(SOURCES, TARGETS)


def test_hypotheses_have_the_probability_of_teacher_forcing(fitted):
    for source, hypotheses in zip(SOURCES[:3], fitted.predict_n_best(SOURCES[:3]), strict=True):
        assert len(hypotheses) == fitted.beam
        scores = [hypothesis.score for hypothesis in hypotheses]
        assert scores == sorted(scores, reverse=True)
        for hypothesis in hypotheses:
            target = [*fitted.target_.encode(hypothesis.text), END] if hypothesis.text else [END]
            target = target[: len(hypothesis.weights)]
            (expected,) = log_probabilities(fitted.model_, fitted.inputs_.encode(source), [target])
            assert hypothesis.log_probability == pytest.approx(expected, rel=1e-4)
    # A text alone is translated as among others.
    alone, among = fitted.predict_n_best(SOURCES[1:2])[0], fitted.predict_n_best(SOURCES[:3])[1]
    assert [each.text for each in alone] == [each.text for each in among]


@pytest.mark.full
def test_a_saved_translator_translates_the_same(fitted, tmp_path):
    fitted.save(tmp_path / "model.keras")
    loaded = models.load(tmp_path / "model.keras")
    assert loaded.get_params() == fitted.get_params()
    assert loaded.predict(SOURCES[:4]) == fitted.predict(SOURCES[:4])


@pytest.mark.full
def test_attention_is_from_units_of_the_target_to_those_of_the_source(fitted):
    (attention,) = fitted.attention(["jump twice", "walk"], ["JUMP JUMP", "WALK"]).values()
    assert [list(tokens) for tokens in attention.tokens] == [["jump", "twice"], ["walk"]]
    assert [list(tokens) for tokens in attention.query_tokens] == [["JUMP", "JUMP", "</s>"], ["WALK", "</s>"]]
    weights = attention.weights()
    np.testing.assert_allclose(weights[0, 0, :3, :2].sum(-1), 1, rtol=1e-5)
    with pytest.raises(ValueError, match=r"must have attention\. Received: mechanism=None"):
        models.Translator(mechanism=None, **FAST).fit(SOURCES, TARGETS).attention(["jump"])


@pytest.mark.full
def test_empty_texts_and_more_beginnings_than_targets(fitted):
    (attention,) = fitted.attention(["", "walk"], ["JUMP", ""]).values()
    assert [list(tokens) for tokens in attention.tokens] == [[""], ["walk"]]
    assert [list(tokens) for tokens in attention.query_tokens] == [["JUMP", "</s>"], ["</s>"]]
    small = models.Translator(**FAST, max_length=2, beam=12).fit(["a"] * 4, ["A"] * 4)
    (hypotheses,) = small.predict_n_best(["a"])
    # Nothing, one unit with its end, and two units that reach the limit.
    assert sorted(hypothesis.text for hypothesis in hypotheses) == ["", "A", "A A"]


@pytest.mark.trains
def test_reversed_letters_are_learned():
    random = np.random.default_rng(0)
    words = sorted({"".join(random.choice(list("abc"), size=random.integers(1, 5))) for _ in range(90)})
    settings = {"source_unit": "character", "target_unit": "character", "units": 32, "embedding_dim": 8, "dropout": 0.0}
    model = models.Translator(
        **settings, epochs=10, learning_rate=0.02, max_length=8, beam=2, random_state=1, verbose=False
    ).fit(words, [word[::-1] for word in words])
    assert model.score(words, [word[::-1] for word in words]) > 0.9
    metrics = model.evaluate(words, [[word[::-1], "x"] for word in words])
    assert metrics["exact_match"].value == pytest.approx(model.score(words, [word[::-1] for word in words]))


@pytest.mark.backend_free
@pytest.mark.parametrize("kind", ["word", "character", "subword"])
def test_units_restore_a_text(kind):
    texts = ["Ein Haus, zwei Häuser.", "日本 und Köln"]
    units = Units.from_dict(Units.fit(kind, texts, 400).to_dict())
    for text in texts:
        ids = units.encode(text)
        assert ids.min() >= 4
        assert ids.max() < units.size
        assert units.decode([START, *ids, END, 0]) == text
        assert len(units.split(text)) == len(ids)
    assert units.encode("").tolist() == [1]


@pytest.mark.backend_free
def test_pairs_are_padded_with_their_end_and_start():
    pairs = TranslationPairs([np.array([4, 5]), np.array([6])], [np.array([7]), np.array([8, 9])])
    inputs, targets, weights = pairs.batch(np.array([0, 1]), 4)
    assert inputs["source"].tolist() == [[4, 5, 0, 0], [6, 0, 0, 0]]
    assert inputs["previous"].tolist() == [[START, 7, 0, 0], [START, 8, 9, 0]]
    assert targets.tolist() == [[7, END, 0, 0], [8, 9, END, 0]]
    assert weights.tolist() == [[1, 1, 0, 0], [1, 1, 1, 0]]


@pytest.mark.backend_free
def test_edit_distance_by_hand():
    assert edit_distance("", "abc") == edit_distance("abc", "") == 3
    assert edit_distance(["a", "b"], ["b", "a"]) == 2
    assert edit_distance("abcd", "abxd") == 1


@pytest.mark.full
def test_wrong_arguments(fitted):
    with pytest.raises(
        ValueError, match=r'`attention` must be "bahdanau", "luong" or None\. Received: attention=\'dot\''
    ):
        build_translator(9, 9, attention="dot")
    with pytest.raises(ValueError, match=r"`coverage_penalty` needs a model with attention\. Received: 0\.1"):
        BeamSearch(translator(None), coverage_penalty=0.1)
    with pytest.raises(ValueError, match=r"`length_penalty` must not be negative\. Received: length_penalty=-1"):
        BeamSearch(translator(None), length_penalty=-1)
    with pytest.raises(TypeError, match=r"translation for each source\. Received: one string or None"):
        fitted.score(["a"], "b")
    with pytest.raises(TypeError, match=r"Every translation must be a string.*at position 0"):
        models.Translator(**FAST).fit(["a"], [3])
    with pytest.raises(ValueError, match=r"2 sources, 1 translations"):
        models.Translator(**FAST).fit(["a", "b"], ["c"])
    with pytest.raises(ValueError, match=r"`n` must be from 1 to `beam`\. Received: n=9, beam=4"):
        fitted.predict_n_best(["jump"], n=9)
    with pytest.raises(ValueError, match=r'A unit must be "word", "character" or "subword"'):
        models.Translator(source_unit="byte", **FAST).fit(SOURCES, TARGETS)
