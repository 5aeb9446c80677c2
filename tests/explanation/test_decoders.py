"""Whether attention explains the units of translations and forecasts, where the answer is known."""

import functools

import numpy as np
import pytest
from keras import ops

import limelight as ll
from explanation import planted_decoders as planted
from limelight import evaluate
from limelight.explanation import translations
from limelight.explanation.forecasts import build_point_model
from limelight.explanation.translations import build_step_model
from limelight.models.forecaster import list_origins

FAST = {"permutations": 4, "restarts": 1, "iterations": 2, "ig_steps": 4, "resamples": 200, "verbose": False}
RANKINGS = ["attention", "occlusion", "leave_one_out", "gradient_times_input", "integrated_gradients"]


@functools.cache
def explain_reverser():
    texts, reversed_texts, links = planted.make_texts(8)
    model = planted.make_reverser()
    assert model.predict(texts) == reversed_texts
    return ll.explanation.explain(model, texts, reversed_texts, marks=links, output_steps=1, rankings=RANKINGS, **FAST)


@pytest.mark.full
def test_attention_finds_the_source_word_of_each_step():
    result = explain_reverser()
    assert (result.n, result.num_outputs, result.layer) == (8, 8, "decoder")
    for name in RANKINGS:
        for words, output, scores in zip(result.words, result.outputs, result.rankings[name], strict=True):
            assert words[int(np.argmax(scores))] == output, name
        measures = result.plausibility[name]
        assert measures["auprc"].value == pytest.approx(1), name
        assert measures["alignment_error_rate"].value == pytest.approx(0), name
        # No error in 8 texts permits as many as Wilson's interval: 1.96^2 / (8 + 1.96^2).
        assert measures["alignment_error_rate"].high == pytest.approx(0.32442, abs=1e-4), name
    assert result.faithfulness.against_random["attention"]["comprehensiveness"].difference.low > 0.3
    assert set(result.left_out) == {"changed", "agreement by class"}
    assert "left out: changed: " in str(result)


@pytest.mark.full
def test_links_of_a_wrong_order_are_not_found():
    texts, _, _ = planted.make_texts(6)
    model = planted.make_reverser()
    # The source is no translation of itself: the steps are those of the words in order, the attention looks at the reverse.
    straight = [np.array([(step, step) for step in range(planted.LENGTH)]) for _ in texts]
    compared = translations.compare_with_links(
        model, texts, texts, straight, ["attention"], layer=None, perturbation=None, indices=np.arange(6),
        output_steps=None, ig_steps=4, settings={"resamples": 100, "seed": 0},
    )  # fmt: skip
    measured = compared["attention"]
    attention = np.tile(np.arange(planted.LENGTH)[::-1, None], (1, 2))
    attention[:, 1] = np.arange(planted.LENGTH)
    expected = evaluate.alignment_error_rate([attention] * 6, straight)
    assert measured["alignment_error_rate"].value == pytest.approx(expected)
    # Only the word in the middle is at its place.
    assert expected == pytest.approx(1 - 1 / planted.LENGTH)
    # So is a random link.
    assert compared["random"]["alignment_error_rate"].value == pytest.approx(1 - 1 / planted.LENGTH)


@pytest.mark.full
@pytest.mark.parametrize("mechanism", ["bahdanau", "transformer", "luong", "coverage"])
def test_the_model_of_a_step_is_that_of_the_translator(mechanism, random):
    model = ll.models.Translator(
        mechanism=mechanism, units=16, embedding_dim=3, num_layers=2, num_heads=2, max_length=6, epochs=1, batch_size=4,
        training={"epoch_steps": 1}, random_state=0, verbose=False,
    )  # fmt: skip
    texts, targets, _ = planted.make_texts(4)
    texts = [" ".join(text.split()[: 2 + index]) for index, text in enumerate(texts)]
    model.fit(texts, targets)
    sources = model._encode_sources(texts)
    emitted = [decoded["ids"][0] for decoded in model._search(sources)]
    result = ll.explanation.explain(
        model, texts, output_steps=None, rankings=["attention", "leave_one_out"], **{**FAST, "restarts": 0}
    )
    maps = list(model.attention(texts))
    weights = model.attention(texts)[maps[-1]].weights()
    for number, (row, output) in enumerate(zip(result.indices, result.outputs, strict=True)):
        step = number - result.indices.index(row)
        previous = np.concatenate([[2], emitted[row][:step]]).astype("int32")
        unit = emitted[row][step]
        assert output == ("</s>" if unit == 3 else model.target_.pieces_of([unit])[0])
        if number % 3:
            continue
        ids = np.stack([sources[row], *(np.where(np.arange(len(sources[row])) == place, 1, sources[row])
                                        for place in range(len(sources[row])))])  # fmt: skip
        inputs = {"source": ids, "previous": np.tile(previous, (len(ids), 1))}
        probabilities = ops.convert_to_numpy(model.model_(inputs, training=False))[:, step, unit].astype(float)
        scores = result.rankings["leave_one_out"][number]
        np.testing.assert_allclose(scores, probabilities[0] - probabilities[1:], atol=2e-5)
        expected = weights[row, :, step, : len(sources[row])].mean(0)
        np.testing.assert_allclose(result.rankings["attention"][number], expected, atol=1e-5)
    assert result.layer == ("cross_attention_2" if mechanism == "transformer" else "decoder")


def test_the_lag_of_a_forecast_is_found():
    series = planted.make_series(10)
    model = planted.make_copier(series)
    rankings = ["occlusion", "leave_one_out", "integrated_gradients"]
    result = ll.explanation.explain(model, series, horizon_step=2, folds=1, rankings=rankings, **FAST)
    assert (result.n, result.output, result.words[0][-1]) == (10, "values", str(40 - planted.HORIZON - 1))
    needed = planted.PAST - planted.SEASON + 1
    for name in ("occlusion", "leave_one_out", "integrated_gradients"):
        assert {int(np.argmax(np.abs(scores))) for scores in result.rankings[name]} == {needed}, name
    # The forecast is the value, and the path from the mean to it is straight.
    windows = [np.abs(each[40 - planted.HORIZON - planted.PAST : 40 - planted.HORIZON]) for each in series]
    expected = [(window[needed] - window.mean()) / window.mean() for window in windows]
    values = [scores[needed] for scores in result.rankings["integrated_gradients"]]
    np.testing.assert_allclose(values, expected, atol=1e-4)
    assert result.faithfulness.against_random["leave_one_out"]["comprehensiveness"].better
    # Nothing reads the attention.
    assert result.permutation.value == pytest.approx(0, abs=1e-6)
    assert result.uniform["cost"].value == pytest.approx(0, abs=1e-6)


@pytest.mark.full
@pytest.mark.parametrize("settings", [{"quantiles": (0.1, 0.5, 0.9), "scaling": "standard"}, {"difference": False}])
def test_the_explained_forecast_is_that_of_the_model(settings):
    series = planted.make_series(5)
    model = ll.models.Forecaster(
        horizon=3, past=8, season=4, units=4, epochs=1, batch_size=8, training={"epoch_steps": 1}, random_state=0,
        verbose=False, **settings,
    )  # fmt: skip
    # The fourth is shorter than the past.
    series[3] = series[3][:6]
    model.fit(series, None)
    panel, _ = model._read(series, None)
    windows = model._windows_at_end(panel)
    batch, _, _ = windows.batch(np.arange(5), 8)
    level, scale = model.inputs_.measure(*windows.read_past(np.arange(5)))
    forecasts = level + scale * ops.convert_to_numpy(build_point_model(model)(batch, training=False))
    expected = model.predict(series)
    expected = expected if expected.ndim == 2 else expected[..., 1]
    np.testing.assert_allclose(forecasts, expected, rtol=1e-4, atol=1e-4)
    result = ll.explanation.explain(
        model, series, folds=2, perturbation="delete", rankings=["attention"], **{**FAST, "restarts": 0}
    )
    assert result.num_outputs == 9
    assert result.n == 5
    assert result.perturbation == "deleted"
    assert [len(scores) for scores in result.rankings["attention"]][6] == 3


@pytest.mark.full
def test_the_variable_that_a_forecast_reads_is_found(random):
    series = planted.make_series(3)
    panel = ll.data.Panel(
        "sales", tuple("abc"), (np.arange(40),) * 3, tuple(series), known=tuple(random.normal(size=(3, 43, 1))),
        known_names=("promotion",), static=random.normal(size=(3, 1)), static_names=("size",), season=4,
    )  # fmt: skip
    model = ll.models.Forecaster(
        horizon=3, past=12, units=4, epochs=1, batch_size=8, training={"epoch_steps": 1}, random_state=0, verbose=False
    )
    model.fit(panel)
    outputs = model.model_.get_layer("outputs")
    kernel, bias = outputs.get_weights()
    outputs.set_weights([0 * kernel, bias])
    few = {"folds": 1, "rankings": ["attention"], **FAST, "restarts": 0}
    result = ll.explanation.explain(model, panel, **few)
    names = ["value", "promotion", "promotion, steps to forecast", "size"]
    assert list(result.variables) == names
    # Only the naive forecast is left, which repeats values.
    assert [result.variables[name].value > 1e-6 for name in names] == [True, False, False, False]
    # With known covariates each step of the forecast has a query of its own.
    single = ll.explanation.explain(model, panel, horizon_step=2, rankings=["attention"], **FAST)
    windows = model._make_windows(panel, *list_origins(panel, 3, 2))
    weights = ll.capture(model.model_, windows.batch(np.arange(6), 12)[0])
    expected = weights["attention"].weights()[:, 0, 1]
    np.testing.assert_allclose(np.stack(single.rankings["attention"]), expected, atol=1e-5)


@pytest.mark.full
def test_mistakes_are_explained():
    texts, _, links = planted.make_texts(3)
    model = planted.make_reverser()
    for arguments, message in (
        ({"marks": links}, "Links need the references that they lead to"),
        ({"layer": "encoder"}, r"`layer` must be an attention that reads the tokens: \['decoder'\]"),
        ({"perturbation": evaluate.Delete()}, '`perturbation` must be "replace" or "delete"'),
        ({"rankings": ["rollout"]}, "Received: 'rollout': there is no other attention"),
        ({"tokens": [["a"]] * 3}, "`tokens` must be left out for this model"),
    ):
        with pytest.raises(ValueError, match=message):
            ll.explanation.explain(model, texts, **{**FAST, **arguments})
    series = planted.make_series(2)
    forecaster = planted.make_copier(series)
    with pytest.raises(ValueError, match="`horizon_step` must be from 1 to 3"):
        ll.explanation.explain(forecaster, series, horizon_step=4, **FAST)
    with pytest.raises(ValueError, match="`y` must be left out"):
        ll.explanation.explain(forecaster, series, [1, 2], **FAST)


@pytest.mark.full
def test_a_translator_without_attention_is_refused():
    model = planted.make_reverser()
    model.mechanism = None
    with pytest.raises(ValueError, match="Received: a Translator with mechanism=None"):
        ll.explanation.explain(model, ["ape"], verbose=False)
    assert build_step_model(planted.make_reverser().model_).output_shape == (None, 2)
