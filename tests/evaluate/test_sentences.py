"""What a comparison says in words."""

import dataclasses

import pytest

from limelight.evaluate import Comparison, Estimate, sentence
from limelight.evaluate.sentences import probability

pytestmark = pytest.mark.backend_free

COMPARISON = Comparison(
    "accuracy", ("attention", "mean pooling"), Estimate(0.774, None, None, "", 3), Estimate(0.759, None, None, "", 3),
    Estimate(0.015, 0.003, 0.027, "", 1061), 0.021, "", 1061, 3,
)  # fmt: skip


def test_a_difference_that_is_shown():
    assert sentence(COMPARISON) == (
        "Attention raised accuracy from 75.9 to 77.4 % against mean pooling "
        "(difference +1.5 points, 95 % CI +0.3 to +2.7, p = .02, 3 seeds, 1,061 test examples)."
    )


def test_an_interval_that_holds_zero_claims_nothing():
    found = dataclasses.replace(COMPARISON, difference=Estimate(0.015, -0.003, 0.033, "", 1061), p_value=0.11)
    assert sentence(found) == (
        "No difference in accuracy could be shown between attention (77.4 %) and mean pooling (75.9 %): "
        "difference +1.5 points, 95 % CI −0.3 to +3.3, p = .11, 3 seeds, 1,061 test examples."
    )


def test_an_interval_without_zero_and_a_large_p_value_claim_nothing():
    assert sentence(dataclasses.replace(COMPARISON, p_value=0.063)).startswith("No difference")


def test_no_interval_claims_nothing():
    found = dataclasses.replace(COMPARISON, difference=Estimate(0.015, None, None, "one example", 1))
    assert "no interval (one example)" in sentence(found)
    assert sentence(found).startswith("No difference")


@pytest.mark.parametrize(("value", "low", "high", "words"), [
    (-0.2, -0.3, -0.1, "LSTM lowered log loss from 0.700 to 0.500 against linear, which is better (difference −0.200"),
    (0.2, 0.1, 0.3, "LSTM raised log loss from 0.700 to 0.900 against linear, which is worse (difference +0.200"),
])  # fmt: skip
def test_less_loss_is_better(value, low, high, words):
    found = dataclasses.replace(
        COMPARISON, metric="log_loss", names=("LSTM", "linear"), first=Estimate(0.7 + value, None, None, "", 3),
        second=Estimate(0.7, None, None, "", 3), difference=Estimate(value, low, high, "", 9),
    )  # fmt: skip
    assert sentence(found).startswith(words)


def test_a_fall_is_called_a_fall():
    found = dataclasses.replace(COMPARISON, difference=Estimate(-0.015, -0.027, -0.003, "", 1061))
    assert sentence(found).startswith("Attention lowered accuracy from 75.9 to 77.4 %")


@pytest.mark.parametrize(("p_value", "words"), [
    (0.0, "p < .001"), (0.00099, "p < .001"), (0.001, "p = .001"), (0.0094, "p = .009"), (0.0099, "p = .010"),
    (0.049, "p = .049"), (0.0502, "p = .050"), (0.0213, "p = .02"), (0.5, "p = .50"), (0.999, "p = 1"), (1.0, "p = 1"),
    (float("nan"), "no p value"),
])  # fmt: skip
def test_p_values_in_prose(p_value, words):
    assert probability(p_value) == words
