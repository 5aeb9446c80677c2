"""Translation: decoding against enumeration of all targets and teacher forcing, samples against probabilities, units, files."""

import itertools
import unicodedata
from typing import ClassVar

import keras
import numpy as np
import pytest

import limelight as ll
from limelight import evaluate, models
from limelight.models import translator as translator_module
from limelight.models.decoding import BeamSearch, RecurrentDecoder, Sampling, TransformerDecoder
from limelight.models.translation import END, START, build_transformer_translator, build_translator
from limelight.models.translator import TranslationPairs, _feed_predictions
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


def translator(attention, size=7, num_layers=2):
    """Return an untrained model whose probabilities differ much from each other."""
    keras.utils.set_random_seed(3)
    if attention == "transformer":
        model = build_transformer_translator(
            9, size, units=8, embedding_dim=4, num_layers=num_layers, num_heads=2, dropout=0.0
        )
    else:
        model = build_translator(9, size, attention=attention, units=5, embedding_dim=4, dropout=0.0)
    random = np.random.default_rng(5)
    for variable in model.trainable_variables:
        variable.assign(random.normal(size=variable.shape, scale=0.8))
    return model


def log_probabilities(model, source, targets):
    """Return the log probability of each target by teacher forcing, of all in one run: no step depends on later ones."""
    lengths = np.array([len(target) for target in targets])
    padded = np.array([[*target, *[0] * (lengths.max() - len(target))] for target in targets])
    previous = np.concatenate([np.full((len(targets), 1), START), padded[:, :-1]], axis=1)
    inputs = {"source": np.repeat(source[None], len(targets), axis=0), "previous": previous}
    probabilities = keras.ops.convert_to_numpy(model(inputs, training=False))
    logarithms = np.log(np.take_along_axis(probabilities, padded[..., None], axis=-1)[..., 0])
    return np.where(np.arange(padded.shape[1]) < lengths[:, None], logarithms, 0).sum(1)


FULL = pytest.mark.full
# One recurrent decoder and one with a cache; the others take the same steps. A search, which compiles most, is done with one.
MECHANISMS = ["bahdanau", "transformer", *(pytest.param(name, marks=FULL) for name in ("luong", "coverage"))]
SEARCHED = [pytest.param("bahdanau", marks=FULL), *MECHANISMS[1:], pytest.param(None, marks=FULL)]


@pytest.mark.parametrize("attention", SEARCHED)
def test_a_wide_search_finds_the_best_of_all_targets(attention):
    model, max_length = translator(attention, num_layers=1), 3
    sources = np.array([[4, 8, 5, 6], [7, 4, 0, 0]])
    found = BeamSearch(model, beam=24, max_length=max_length, length_penalty=0.7).predict_on_batch(sources)
    letters = range(END + 1, 7)
    targets = [(*body, END) for length in range(max_length) for body in itertools.product(letters, repeat=length)]
    targets += list(itertools.product(letters, repeat=max_length))
    lengths = np.array([len(target) for target in targets])
    for row, source in enumerate((sources[0], sources[1, :2])):
        values = log_probabilities(model, source, targets) / ((5 + lengths) / 6) ** 0.7
        scores = dict(zip(targets, values, strict=True))
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


@pytest.mark.parametrize("attention", MECHANISMS)
def test_steps_equal_teacher_forcing(attention):
    model = translator(attention)
    source, previous = np.array([[4, 8, 5, 0], [7, 4, 6, 8]]), np.array([[START, 5, 6, 4, 5], [START, 4, 4, 6, 6]])
    expected = keras.ops.convert_to_numpy(model({"source": source, "previous": previous}, training=False))
    maps = ll.capture(model, {"source": source, "previous": previous})
    if attention == "transformer":
        decoder, maps = TransformerDecoder(model), maps.select("cross_attention_*")
    else:
        decoder = RecurrentDecoder(model)
    expected_weights = np.mean([each.weights() for each in maps.values()], axis=(0, 2))  # over layers and heads
    memory, states = decoder.start(keras.ops.convert_to_tensor(source), 1, 5)
    for step in range(5):
        outputs, states, weights = decoder.step(keras.ops.convert_to_tensor(previous[:, step]), states, memory)
        received = keras.ops.convert_to_numpy(model.get_layer("probabilities")(outputs))
        np.testing.assert_allclose(received, expected[:, step], rtol=1e-4, atol=1e-6)
        weights = keras.ops.convert_to_numpy(weights)
        np.testing.assert_allclose(weights, expected_weights[:, step], rtol=1e-4, atol=1e-6)


def draw(model, source, seeds, **settings):
    batch = {"source": np.repeat(source, len(seeds), axis=0), "seeds": np.array(seeds, np.int32)}
    return {name: np.asarray(value) for name, value in Sampling(model, **settings).predict_on_batch(batch).items()}


@pytest.mark.full
def test_samples_have_the_probabilities_of_the_model():
    model, source = translator("bahdanau"), np.array([[4, 8, 5]])
    inputs = {"source": source, "previous": np.array([[START]])}
    first = keras.ops.convert_to_numpy(model(inputs, training=False))[0, 0].astype(float)
    first[:END] = 0
    for settings in ({}, {"temperature": 0.5}, {"top_k": 2}, {"top_p": 0.7}):
        expected = first ** (1 / settings.get("temperature", 1))
        expected /= expected.sum()
        order = np.argsort(-expected)
        kept = np.zeros_like(expected)
        count = settings.get("top_k", 1 + int((np.cumsum(expected[order]) < settings.get("top_p", 1)).sum()))
        kept[order[:count]] = expected[order[:count]]
        samples = draw(model, source, [0, 1, 2, 3], samples=1000, max_length=1, **settings)["ids"]
        shares = np.bincount(samples.reshape(-1), minlength=7) / 4000
        np.testing.assert_allclose(shares, kept / kept.sum(), atol=4 * 0.5 / 4000**0.5)
        assert not shares[kept == 0].any()


@pytest.mark.full
def test_samples_depend_on_their_seed_alone():
    model, source = translator("transformer"), np.array([[4, 8, 5]])
    samples = draw(model, source, [5, 9], samples=20, max_length=4)
    alone = draw(model, source, [9], samples=20, max_length=4)
    np.testing.assert_array_equal(samples["ids"][1], alone["ids"][0])
    assert len({tuple(ids) for ids in samples["ids"].reshape(-1, 4)}) > 2
    for ids, received in zip(samples["ids"][0], samples["log_probabilities"][0], strict=True):
        (expected,) = log_probabilities(model, source[0], [ids[ids > 0]])
        assert received == pytest.approx(expected, rel=1e-4)
    coldest = draw(model, source, [3], samples=2, max_length=4, temperature=1e-4)["ids"][0]
    greedy = BeamSearch(model, beam=1, max_length=4).predict_on_batch(source)
    np.testing.assert_array_equal(coldest, np.repeat(greedy["ids"][0], 2, axis=0))


@pytest.mark.full
@pytest.mark.parametrize("attention", ["bahdanau", "transformer"])
def test_the_coverage_loss_by_hand(attention):
    settings = {"units": 8, "embedding_dim": 4, "dropout": 0.0, "coverage_loss": 0.5}
    if attention == "transformer":
        model = build_transformer_translator(9, 7, num_layers=1, num_heads=2, **settings)
    else:
        model = build_translator(9, 7, attention=attention, **settings)
    batch = {"source": np.array([[4, 8, 5]]), "previous": np.array([[START, 4, 6, 5, 0]])}
    model(batch, training=True)
    (received,) = model.losses
    *_, cross_attention = ll.capture(model, batch).values()
    weights = cross_attention.weights()[0, :, :4]  # heads, steps, units of the source
    earlier = np.cumsum(weights, axis=1) - weights
    received = keras.ops.convert_to_numpy(received)
    assert received == pytest.approx(0.5 * np.minimum(weights, earlier).sum(-1).mean(), rel=1e-4)


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
        targets = [[*fitted.target_.encode(each.text), END] if each.text else [END] for each in hypotheses]
        targets = [target[: len(each.weights)] for target, each in zip(targets, hypotheses, strict=True)]
        expected = log_probabilities(fitted.model_, fitted.inputs_.encode(source), targets)
        assert [hypothesis.log_probability for hypothesis in hypotheses] == pytest.approx(expected, rel=1e-4)
    # A text alone is translated as among others.
    alone, among = fitted.predict_n_best(SOURCES[1:2])[0], fitted.predict_n_best(SOURCES[:3])[1]
    assert [each.text for each in alone] == [each.text for each in among]


@pytest.fixture(scope="module")
def transformer():
    settings = {**FAST, "units": 8, "num_layers": 1, "num_heads": 2, "max_length": 8, "coverage_loss": 0.1}
    return models.Translator(mechanism="transformer", scheduled_sampling=0.5, **settings).fit(SOURCES, TARGETS)


@pytest.mark.full
@pytest.mark.parametrize("name", ["fitted", "transformer"])
def test_a_saved_translator_translates_the_same(name, request, tmp_path):
    model = request.getfixturevalue(name)
    model.save(tmp_path / "model.keras")
    loaded = models.load(tmp_path / "model.keras")
    assert loaded.get_params() == model.get_params()
    assert loaded.predict(SOURCES[:4]) == model.predict(SOURCES[:4])
    samples = [[each.log_probability for each in row] for row in model.sample(SOURCES[:2], 3, seed=1)]
    for seed in (1, 2):
        again = [[each.log_probability for each in row] for row in loaded.sample(SOURCES[:2], 3, seed=seed)]
        assert (again == samples) == (seed == 1)


@pytest.mark.full
def test_the_attention_of_a_transformer_is_that_of_its_hypotheses(transformer):
    (hypotheses,) = transformer.predict_n_best(["jump twice"], n=1)
    maps = transformer.attention(["jump twice"])
    assert list(maps) == ["cross_attention_1"]
    assert maps["cross_attention_1"].shape[:2] == (1, 2)
    length = len(hypotheses[0].weights)
    weights = maps["cross_attention_1"].weights()[0, :, :length, :2].mean(0)
    np.testing.assert_allclose(hypotheses[0].weights, weights, rtol=1e-4, atol=1e-6)
    assert list(maps["cross_attention_1"].tokens[0]) == ["jump", "twice"]


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
def test_a_translation_that_reached_the_limit_has_no_end():
    model = models.Translator(**FAST, max_length=2, beam=12).fit(["a"] * 4, ["A"] * 4)
    (hypotheses,) = model.predict_n_best(["a"])
    assert {each.text: each.is_complete for each in hypotheses} == {"": True, "A": True, "A A": False}
    model.set_params(beam=1)
    best = model.predict_n_best(["a"])[0][0]
    (attention,) = model.attention(["a"]).values()
    assert list(attention.query_tokens[0]) == [*best.text.split(), *["</s>"] * best.is_complete]
    weights = attention.weights()[0, 0, : len(best.weights), :1]
    np.testing.assert_allclose(best.weights, weights, rtol=1e-5)


# `pytest.warns` repeats the warnings that it was not asked for, without their place.
@pytest.mark.full
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_long_texts_are_cut_counted_and_have_no_end():
    model = models.Translator(**FAST, max_length=3, mechanism=None, validation=0.0)
    with pytest.warns(UserWarning, match=r"at most 3 units.*1 longer sources and 2 longer targets of 5"):
        model.fit(["a b c", "a b c d", "a", "a", "a"], ["A B", "A B C", "A B C D", "A", "A"])
    assert (model.history_["cut_sources"], model.history_["cut_targets"]) == (1, 2)
    sources, targets, ended = model._encode(model.inputs_, model.target_, ["a b c d", "a"], ["A B C D", "A B"])
    inputs, targets, weights = TranslationPairs(sources, targets, ended).batch(np.array([0, 1]), 4)
    ids = {name: int(model.target_.encode(name)[0]) for name in "ABC"}
    assert targets.tolist() == [[ids["A"], ids["B"], ids["C"], 0], [ids["A"], ids["B"], END, 0]]
    assert inputs["previous"].tolist() == [[START, ids["A"], ids["B"], 0]] * 2
    assert weights.tolist() == [[1, 1, 1, 0]] * 2
    with pytest.warns(
        UserWarning, match=r"at most 3 units to be read whole. Received: 1 longer of 2. Their ends are left out"
    ):
        translations = model.predict(["a b c d", "a b c"])
    assert translations[0] == translations[1]


@pytest.mark.full
def test_scheduled_sampling_feeds_the_predictions():
    model, random = translator("luong"), np.random.default_rng(0)
    inputs = {"source": np.array([[4, 8, 5], [5, 6, 0]]), "previous": np.array([[START, 5, 6, 4], [START, 5, 0, 0]])}
    predicted = keras.ops.convert_to_numpy(model(inputs, training=False))[..., END:].argmax(-1) + END
    everywhere = _feed_predictions(1.0, model, inputs, random, 1.0)["previous"]
    assert everywhere.tolist() == [[START, *predicted[0, :3]], [START, predicted[1, 0], 0, 0]]
    assert _feed_predictions(1.0, model, inputs, random, 0.0) is inputs
    tall = {name: np.repeat(value[:1], 2000, axis=0) for name, value in inputs.items()}
    share = (_feed_predictions(0.5, model, tall, random, 0.5)["previous"][:, 1] != 5).mean()
    assert share == pytest.approx(0.25 * (predicted[0, 0] != 5), abs=0.05)
    # Padding, however probable, is never fed: it would be masked.
    layer = model.get_layer("probabilities")
    layer.set_weights(
        [layer.get_weights()[0], layer.get_weights()[1] + 50.0 * (np.arange(model.output.shape[-1]) == 0)]
    )
    assert _feed_predictions(1.0, model, inputs, random, 1.0)["previous"].tolist() == everywhere.tolist()


@pytest.mark.full
def test_evaluation_is_that_of_translations(fitted):
    references = [["JUMP", "HOP"], ["JUMP JUMP"], ["LEFT WALK"], ["WALK"]]
    expected = evaluate.translation(references, fitted.predict(SOURCES[:4])).to_dict()
    assert fitted.evaluate(SOURCES[:4], references).to_dict() == expected
    assert fitted.score(SOURCES[:4], references) == expected["metrics"]["exact_match"]["value"]


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
    score = model.score(words, [word[::-1] for word in words])
    assert score > 0.9
    metrics = model.evaluate(words, [[word[::-1], "x"] for word in words])
    assert metrics["exact_match"].value == pytest.approx(score)


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
@pytest.mark.parametrize("kind", ["word", "character", "subword"])
def test_units_are_the_same_however_a_letter_was_typed(kind):
    composed, decomposed = (unicodedata.normalize(form, "ναί όχι") for form in ("NFC", "NFD"))
    assert composed != decomposed
    for text in (composed, decomposed):
        units = Units.fit(kind, [text], 300)
        assert units.encode(composed).tolist() == units.encode(decomposed).tolist()
        assert 1 not in units.encode(decomposed)
        assert units.split(decomposed) == units.split(composed)
        assert units.decode(units.encode(decomposed)) == composed


@pytest.mark.backend_free
def test_pairs_are_padded_with_their_end_and_start():
    pairs = TranslationPairs([np.array([4, 5]), np.array([6])], [np.array([7]), np.array([8, 9])])
    inputs, targets, weights = pairs.batch(np.array([0, 1]), 4)
    assert inputs["source"].tolist() == [[4, 5, 0, 0], [6, 0, 0, 0]]
    assert inputs["previous"].tolist() == [[START, 7, 0, 0], [START, 8, 9, 0]]
    assert targets.tolist() == [[7, END, 0, 0], [8, 9, END, 0]]
    assert weights.tolist() == [[1, 1, 0, 0], [1, 1, 1, 0]]


@pytest.mark.full
def test_wrong_arguments(fitted):
    with pytest.raises(
        ValueError, match=r'`attention` must be "bahdanau", "luong", "coverage" or None\. Received: attention=\'dot\''
    ):
        build_translator(9, 9, attention="dot")
    with pytest.raises(ValueError, match=r"`coverage_penalty` needs a model with attention\. Received: 0\.1"):
        BeamSearch(translator(None), coverage_penalty=0.1)
    with pytest.raises(ValueError, match=r"`length_penalty` must not be negative\. Received: length_penalty=-1"):
        BeamSearch(translator(None), length_penalty=-1)
    with pytest.raises(ValueError, match=r"`coverage_loss` needs a model with attention\. Received: coverage_loss=1"):
        build_translator(9, 9, attention=None, coverage_loss=1)
    with pytest.raises(ValueError, match=r"`temperature` must be positive\. Received: temperature=0"):
        fitted.sample(["a"], temperature=0)
    with pytest.raises(ValueError, match=r"`top_p` must be in \(0, 1\]\. Received: top_p=1.5"):
        fitted.sample(["a"], top_p=1.5)
    with pytest.raises(ValueError, match=r"`scheduled_sampling` must be in \[0, 1\]\. Received: scheduled_sampling=2"):
        models.Translator(scheduled_sampling=2, **FAST).fit(SOURCES, TARGETS)
    with pytest.raises(ValueError, match=r'`mechanism` must be "bahdanau".*Received: mechanism=\'dot\''):
        models.Translator(mechanism="dot", **FAST).fit(SOURCES, TARGETS)
    with pytest.raises(ValueError, match=r"`units` of a transformer must be a multiple of 8\. Received: units=6"):
        models.Translator(mechanism="transformer", **FAST).fit(SOURCES, TARGETS)
    with pytest.raises(TypeError, match=r"translation for each source\. Received: one string or None"):
        fitted.score(["a"], "b")
    with pytest.raises(TypeError, match=r"Every translation must be a string.*at position 0"):
        models.Translator(**FAST).fit(["a"], [3])
    with pytest.raises(ValueError, match=r"2 sources, 1 translations"):
        models.Translator(**FAST).fit(["a", "b"], ["c"])
    with pytest.raises(ValueError, match=r"one translation for each source\. Received: 1 sources, 2 translations"):
        fitted.attention(["jump"], ["JUMP", "RUN"])
    with pytest.raises(ValueError, match=r"`n` must be from 1 to `beam`\. Received: n=9, beam=4"):
        fitted.predict_n_best(["jump"], n=9)
    with pytest.raises(ValueError, match=r'A unit must be "word", "character" or "subword"'):
        models.Translator(source_unit="byte", **FAST).fit(SOURCES, TARGETS)


class Recorder:
    """A stand-in for `Progress` that records its calls."""

    calls: ClassVar[list] = []

    def __init__(self, quiet):
        self.calls.append(("quiet", quiet))

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass

    def set_total(self, steps):
        self.calls.append(("total", steps))

    def start_run(self, name, steps):
        self.calls.append((name, steps))

    def step(self):
        self.calls.append(("step", 1))


@pytest.mark.full
def test_decoding_shows_its_batches(monkeypatch):
    model = models.Translator(**FAST, mechanism=None, beam=1, max_length=3).fit(SOURCES, TARGETS)
    monkeypatch.setattr(translator_module, "Progress", Recorder)
    monkeypatch.setattr(translator_module, "_ROWS", 4)
    for verbose, quiet in ((True, False), (0, True)):
        Recorder.calls.clear()
        model.set_params(verbose=verbose).predict(SOURCES[:10])
        assert Recorder.calls == [("quiet", quiet), ("total", 3), ("decoding", 3), *[("step", 1)] * 3]


@pytest.mark.full
@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_frames_of_translations(library):
    frame = pytest.importorskip(library).DataFrame
    table = frame({"source": SOURCES, "target": TARGETS})
    settings = {**FAST, "mechanism": None, "beam": 1, "max_length": 3}
    expected = models.Translator(**settings).fit(SOURCES, TARGETS)
    for X, y in ((table["source"], table["target"]), (table[["source"]], table[["target"]])):
        model = models.Translator(**settings).fit(X, y)
        assert model.predict(X) == expected.predict(SOURCES)
        assert model.score(X, y) == expected.score(SOURCES, TARGETS)
    references = frame({"y": [[target, "other"] for target in TARGETS]})["y"]
    assert expected.score(SOURCES, references) == expected.score(SOURCES, [[target, "other"] for target in TARGETS])
    with pytest.raises(ValueError, match=r"one column of translations\. Received: a data frame of 2 columns"):
        models.Translator(**settings).fit(SOURCES, table)
