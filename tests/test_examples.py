"""Every example runs, and says what it should, on each backend."""

import runpy
from pathlib import Path

import numpy as np
import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"


def main_of(name):
    """The `main` of the example whose file name starts with a number."""
    (path,) = EXAMPLES.glob(f"{name}_*.py")
    return runpy.run_path(str(path))["main"]


def test_numpy_and_attend_give_the_same_numbers(capsys):
    output, weights = main_of("01")()
    np.testing.assert_allclose(output, 0, atol=1e-6)
    np.testing.assert_allclose(weights, 0, atol=1e-6)
    printed = capsys.readouterr().out
    assert printed.count("[2.6993") == 2


def test_the_functional_model_contracts_the_right_axis():
    found = main_of("02")()
    assert found["difference"] < 1e-5
    assert found["error"] != "none"
    assert found["shape"] == (2, 7, 10)


@pytest.mark.slow
def test_self_attention_finds_the_marked_steps():
    found = main_of("03")(epochs=8, count=1000)
    assert found["error"] < found["variance"] / 2
    assert found["marked"] > 2 * 5 / 40


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "recurrent"), [("step", "GRU"), ("sequence", "LSTM")])
def test_recurrence_with_attention_learns_who_speaks(kind, recurrent):
    accuracy = main_of("04")(epochs=4, kinds=(kind,), recurrents=(recurrent,))
    assert accuracy[kind, recurrent] > 2 / 9


@pytest.mark.slow
def test_hierarchical_attention_reads_no_padding():
    found = main_of("05")(epochs=2, limit=128)
    assert found["padding"] == 0
    assert found["accuracy"] > 1 / 5


def test_weights_are_drawn_to_files(tmp_path):
    vector = main_of("06")(str(tmp_path / "weights.png"))
    assert (tmp_path / "weights.png").read_bytes().startswith(b"\x89PNG")
    assert "street" in vector.read_text()


@pytest.mark.slow
def test_evaluation_gives_intervals():
    found = main_of("07")(epochs=4)
    accuracy = found["classifier"]["accuracy"]
    assert accuracy.low < accuracy.value < accuracy.high
    assert found["regressor"]["mse"].value > 0
    assert found["unchanged"]["mae"].low < found["unchanged"]["mae"].value


def test_a_model_of_keras_is_mended(capsys):
    found = main_of("08")()
    assert found["kinds"] == ["weight on padding", "lost mask"]
    assert found["new"] < 1e-5 < 1e-3 < found["old"]
    assert "upgraded: Nothing found." in capsys.readouterr().out
