"""Run every example and check what it returns."""

import runpy
from pathlib import Path

import numpy as np
import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"


def load_main(number):
    """Return the `main` of the example whose file name starts with a number."""
    (path,) = EXAMPLES.glob(f"{number}_*.py")
    return runpy.run_path(str(path))["main"]


@pytest.mark.full
def test_numpy_and_attend_give_the_same_numbers(capsys):
    output, weights = load_main("01")()
    np.testing.assert_allclose(output, 0, atol=1e-6)
    np.testing.assert_allclose(weights, 0, atol=1e-6)
    assert capsys.readouterr().out.count("[2.6993") == 2


@pytest.mark.full
def test_the_functional_model_contracts_the_right_axis():
    results = load_main("02")()
    assert results["difference"] < 1e-5
    assert results["error"] != "none"
    assert results["shape"] == (2, 7, 10)


@pytest.mark.slow
@pytest.mark.trains
def test_self_attention_attends_to_the_marked_steps():
    results = load_main("03")(epochs=8, count=1000)
    assert results["error"] < results["variance"] / 2
    assert results["marked"] > 2 * 5 / 40


@pytest.mark.slow
@pytest.mark.trains
@pytest.mark.parametrize(("kind", "recurrent"), [("step", "GRU"), ("sequence", "LSTM")])
def test_recurrence_with_attention_predicts_the_speaker(kind, recurrent):
    accuracy = load_main("04")(epochs=4, kinds=(kind,), recurrents=(recurrent,))
    assert accuracy[kind, recurrent] > 2 / 9


@pytest.mark.slow
@pytest.mark.trains
def test_hierarchical_attention_gives_padding_no_weight():
    results = load_main("05")(epochs=2, limit=128)
    assert results["padding"] == 0
    assert results["accuracy"] > 1 / 5


@pytest.mark.full
def test_weights_are_saved_as_pictures(tmp_path):
    vector = load_main("06")(tmp_path / "weights.png")
    assert (tmp_path / "weights.png").read_bytes().startswith(b"\x89PNG")
    assert "street" in vector.read_text()


@pytest.mark.slow
@pytest.mark.trains
def test_metrics_have_intervals():
    results = load_main("07")(epochs=4)
    accuracy = results["classifier"]["accuracy"]
    assert accuracy.low < accuracy.value < accuracy.high
    assert results["regressor"]["mse"].value > 0
    assert results["unchanged"]["mae"].low < results["unchanged"]["mae"].value


@pytest.mark.full
def test_a_keras_model_is_linted_and_upgraded(capsys):
    results = load_main("08")()
    assert results["kinds"] == ["weight on padding", "lost mask"]
    assert results["new"] < 1e-5 < 1e-3 < results["old"]
    assert "upgraded: No findings." in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.trains
def test_translations_with_and_without_attention_are_compared(tmp_path, capsys):
    results = load_main("09")(count=100, epochs=1, picture=tmp_path / "alignment.png")
    assert results["difference"].low <= results["difference"].value <= results["difference"].high
    assert capsys.readouterr().out.count("exact match") == 2
    assert (tmp_path / "alignment.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
@pytest.mark.trains
def test_forecasts_are_drawn_beside_naive_ones(tmp_path):
    results = load_main("10")(epochs=1, windows=400, picture=tmp_path / "forecast.png")
    assert results["model"]["mape"].value < results["last value"]["mape"].value
    assert results["last season"]["mape"].value == pytest.approx(0.165, abs=0.001)
    assert (tmp_path / "forecast.png").read_bytes().startswith(b"\x89PNG")
