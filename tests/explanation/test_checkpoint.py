"""An explanation that was stopped goes on from its stored parts, and gives the numbers of one that was not."""

import functools

import numpy as np
import pytest

import limelight as ll
from explanation import planted
from limelight import evaluate
from limelight._progress import Progress
from limelight.explanation import checkpoint as checkpoints
from limelight.explanation import forecasts
from limelight.explanation.checkpoint import Checkpoint
from limelight.explanation.subjects import make_subject

UNKNOWN = evaluate.Replace(1, "replaced by the unknown token")
SETTINGS = {"perturbation": UNKNOWN, "permutations": 5, "restarts": 1, "iterations": 4, "ig_steps": 4, "resamples": 100}


class Stopping(Progress):
    """Progress that stops the program after a number of steps, as Ctrl-C does."""

    def __init__(self, steps):
        super().__init__(quiet=True)
        self.left, self.lines = steps, []

    def write(self, line):
        self.lines.append(line)

    def step(self, steps=1):
        self.left -= steps
        if self.left < 0:
            raise KeyboardInterrupt


# The names of the layers of a second one would differ, as if it were another model.
make_model = functools.cache(planted.planted_model)


def explain(folder, steps=10**9, **changes):
    model, (texts, labels, _) = make_model(), planted.make_texts(12)
    progress = Stopping(steps)
    result = ll.explanation.explain(
        model, texts, labels, checkpoint=folder, progress=progress, **{**SETTINGS, **changes}
    )
    return result, progress.lines


def numbers(result):
    return {**result.to_dict(), "cost": None}


@pytest.mark.full
def test_a_stopped_explanation_goes_on(tmp_path, monkeypatch):
    undisturbed, lines = explain(None)
    assert "forward and " in lines[0]
    assert " backward passes of one example, about " in lines[0]
    total = undisturbed.cost["forward"] + undisturbed.cost["backward"]
    # Each part is written at once, as if it took some seconds.
    monkeypatch.setattr(checkpoints, "_INTERVAL", 0.0)
    for steps in (60, 400, total * 3 // 4):
        with pytest.raises(KeyboardInterrupt):
            explain(tmp_path, steps)
        assert list(tmp_path.glob("*/part-*.npz"))
    result, lines = explain(tmp_path)
    assert lines[1] == "going on from the parts that were stored earlier"
    assert numbers(result) == numbers(undisturbed)
    assert result.cost["backward"] < undisturbed.cost["backward"] / 2
    # At the end nothing is left.
    assert not list(tmp_path.iterdir())


@pytest.mark.full
def test_parts_of_something_else_are_not_used(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        explain(tmp_path, 300)
    for changes in ({"seed": 1}, {"perturbation": evaluate.Replace(5, "replaced by a filler")}, {"ig_steps": 5}):
        _, lines = explain(tmp_path, **changes)
        assert not any("going on" in line for line in lines)
    _, lines = explain(tmp_path)
    assert any("going on" in line for line in lines)


@pytest.mark.backend_free
def test_a_damaged_part_counts_as_missing(tmp_path):
    model, (texts, _, _) = planted.planted_model(), planted.make_texts(4)
    subject = make_subject(model, texts, tokens=None, perturbation=UNKNOWN, output=None, indices=None)
    stored = Checkpoint(tmp_path, subject)
    stored.compute("first", lambda: {"values": np.arange(3)})
    stored.write()
    stored.compute("second", lambda: {"values": np.ones(2)})
    stored.write()
    last = sorted(tmp_path.glob("part-*.npz"))[-1]
    last.write_bytes(last.read_bytes()[:40])
    again = Checkpoint(tmp_path, subject)
    assert not again.is_empty
    calls = []

    def compute(value):
        calls.append(value)
        return {"values": np.full(2, value)}

    np.testing.assert_array_equal(again.compute("first", lambda: compute(7))["values"], np.arange(3))
    np.testing.assert_array_equal(again.compute("second", lambda: compute(8))["values"], [8, 8])
    assert calls == [8]
    # Later parts do not replace earlier ones.
    again.write()
    assert len(list(tmp_path.glob("part-*.npz"))) == 3


def test_steps_of_a_forecast_have_parts_of_their_own(random):
    series = list(random.normal(size=(3, 20)) + 5)
    model = ll.models.Forecaster(
        horizon=2, past=6, units=2, epochs=1, training={"epoch_steps": 1}, random_state=0, verbose=False
    ).fit(series)
    settings = {"perturbation": None, "sample": None, "folds": 1, "seed": 0}
    subjects = [forecasts.make_subject(model, series, horizon_step=step, **settings) for step in (1, 2, None)]
    assert len({checkpoints.compute_fingerprint(model, subject, {}) for subject in subjects}) == 3
