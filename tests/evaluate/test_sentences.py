"""Sentences that describe comparisons."""

import dataclasses

import pytest

from limelight.evaluate import Comparison, Estimate, sentence

pytestmark = pytest.mark.backend_free

COMPARISON = Comparison(
    "accuracy", ("attention", "mean pooling"), Estimate(0.774, None, None, "", 3), Estimate(0.759, None, None, "", 3),
    Estimate(0.015, 0.003, 0.027, "", 1061), 0.021, "", 1061, 3,
)  # fmt: skip


def test_difference_that_is_shown():
    assert sentence(COMPARISON) == (
        "Attention raised accuracy from 75.9 to 77.4 % against mean pooling "
        "(difference +1.5 points, 95 % CI +0.3 to +2.7, p = .02, 3 seeds, 1,061 test examples)."
    )


def test_interval_that_contains_zero_claims_nothing():
    comparison = dataclasses.replace(COMPARISON, difference=Estimate(0.015, -0.003, 0.033, "", 1061), p_value=0.11)
    assert sentence(comparison) == (
        "No difference in accuracy could be shown between attention (77.4 %) and mean pooling (75.9 %): "
        "difference +1.5 points, 95 % CI −0.3 to +3.3, p = .11, 3 seeds, 1,061 test examples."
    )


def test_two_seeds_are_called_too_few():
    comparison = dataclasses.replace(COMPARISON, difference=Estimate(0.22, -0.3, 0.7, "", 1061), p_value=0.11, seeds=2)
    assert sentence(comparison).endswith(
        "2 seeds, 1,061 test examples. Two seeds can hardly show any difference: train at least 3."
    )


def test_interval_without_zero_but_large_p_value_claims_nothing():
    assert sentence(dataclasses.replace(COMPARISON, p_value=0.063)).startswith("No difference")


def test_no_interval_claims_nothing():
    comparison = dataclasses.replace(COMPARISON, difference=Estimate(0.015, None, None, "one example", 1))
    assert "no interval (one example)" in sentence(comparison)
    assert sentence(comparison).startswith("No difference")


@pytest.mark.parametrize(("value", "low", "high", "words"), [
    (-0.2, -0.3, -0.1, "LSTM lowered log loss from 0.700 to 0.500 against linear, which is better (difference −0.200"),
    (0.2, 0.1, 0.3, "LSTM raised log loss from 0.700 to 0.900 against linear, which is worse (difference +0.200"),
])  # fmt: skip
def test_lower_loss_is_better(value, low, high, words):
    comparison = dataclasses.replace(
        COMPARISON, metric="log_loss", names=("LSTM", "linear"), first=Estimate(0.7 + value, None, None, "", 3),
        second=Estimate(0.7, None, None, "", 3), difference=Estimate(value, low, high, "", 9),
    )  # fmt: skip
    assert sentence(comparison).startswith(words)


def test_decrease_is_called_lowered():
    comparison = dataclasses.replace(COMPARISON, difference=Estimate(-0.015, -0.027, -0.003, "", 1061))
    assert sentence(comparison).startswith("Attention lowered accuracy from 75.9 to 77.4 %")


def test_corrected_p_value_is_said_beside_the_uncorrected_interval():
    assert (
        "95 % CI +0.3 to +2.7, p = .02 after Holm's correction for 8 tests (the interval is not corrected), 3 seeds"
        in sentence(dataclasses.replace(COMPARISON, num_tests=8))
    )
