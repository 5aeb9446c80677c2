"""Sentences of the verdict claim no more than their numbers."""

import dataclasses

from explanation.test_explain import explain
from limelight.evaluate import Estimate
from limelight.explanation import verdict


def write(**changes):
    return verdict.write(dataclasses.replace(explain("planted"), **changes))


def test_few_examples_claim_nothing():
    better = {"ranking": "integrated_gradients", "value": 0.2, "low": 0.1, "high": 0.3, "p_value": 0.001}
    cost = Estimate(0.1, 0.02, 0.2, "", 19)
    uniform = {**explain("planted").uniform, "cost": cost}
    many = write(rival=better, uniform=uniform)
    assert any(sentence.startswith("It finds more than integrated gradients does") for sentence in many)
    assert many[-1].startswith("The weights cannot be replaced by equal ones")
    assert sum("the range of BiLSTM classifiers" in sentence for sentence in many) == 2
    few = write(rival=better, uniform=uniform, n=19)
    assert any(sentence.startswith("No difference between it and integrated gradients") for sentence in few)
    assert few[-1].startswith("It cannot be told whether the weights can be replaced by equal ones")
    assert not any("the range of BiLSTM classifiers" in sentence for sentence in few)
    assert any(sentence.startswith("The attention and leave-one-out have a mean Kendall tau of") for sentence in few)


def test_other_attention_is_what_a_search_found():
    share = Estimate(0.0, 0.0, 0.09, "Wilson", 40)
    adversarial = {**explain("planted").adversarial, "share": share}
    assert any(
        sentence.startswith("For 0 % of the examples (95 % CI 0 % to 9 %) a search found quite different attention")
        for sentence in write(adversarial=adversarial)
    )


def test_percentages_have_a_real_minus_sign():
    share = Estimate(0.1, -0.07, 0.27, "t", 40)
    adversarial = {**explain("planted").adversarial, "share": share}
    assert any(
        sentence.startswith("For 10 % of the examples (95 % CI −7 % to 27 %)")
        for sentence in write(adversarial=adversarial)
    )


def test_examples_without_a_tau_are_counted():
    agreement = {**explain("planted").agreement, "gradients": Estimate(0.33, -0.53, 1.0, "t", 4)}
    start = "The attention and gradients have a mean Kendall tau of .33 (95 % CI −.53 to 1.00"
    for changes, expected in (
        (
            {"without_tau": {"gradients": 2, "leave_one_out": 0}, "num_outputs": 6},
            "; 2 of 6 examples without a tau left out).",
        ),
        (
            {"without_tau": {"gradients": 1002}, "num_outputs": 1024},
            "; 1,002 of 1,024 outputs without a tau left out).",
        ),
        ({"without_tau": {"gradients": 0}}, ")."),
    ):
        assert start + expected in write(agreement=agreement, n=6, **changes)
    alone = Estimate(0.33, None, None, "one example", 1)
    assert "The attention and gradients have a mean Kendall tau of .33 (no interval: one example)." in write(
        agreement={**agreement, "gradients": alone}
    )


def test_distances_of_values_have_a_unit():
    uniform = {"moved": Estimate(0.5, 0.4, 0.6, "", 40)}
    sentences = write(output="values", uniform=uniform)
    assert (
        "Equal weights move the predictions by .50 times the spread of the predictions (95 % CI .40 to .60)."
        in sentences
    )
    assert sum("times the spread of the predictions" in sentence for sentence in sentences) == 3
    assert not any("times the spread" in sentence for sentence in write())


def test_a_cost_in_the_scale_of_windows_says_so():
    cost = {"metric": "mae", "cost": Estimate(0.1, 0.05, 0.2, "", 40), "is_scaled": True}
    sentence = write(output="values", uniform={**explain("planted").uniform, **cost})[-1]
    assert sentence.startswith("Equal weights cost +0.1")
    assert "in units of the scale of the window" in sentence


def test_the_amounts_of_a_sentence_have_the_same_decimals():
    cost = {"metric": "mae", "cost": Estimate(4.41e-5, -3.39e-4, 6.44e-4, "", 40)}
    rival = {"ranking": "integrated_gradients", "value": -0.002, "low": -0.00441, "high": 0.0001, "p_value": 0.07}
    changed = {"output": "values", "uniform": {**explain("planted").uniform, **cost}}
    sentences = write(rival=rival, **changed)
    assert sentences[-1] == ("Equal weights cost +0.00004 of mean absolute error (95 % CI −0.00034 to +0.00064).")
    assert any("(difference −0.0020, 95 % CI −0.0044 to +0.0001, p = .07)" in each for each in sentences)
    without = {**rival, "low": None, "high": None}
    assert any("(difference −0.0020, no interval, p = .07)" in each for each in write(rival=without, **changed))


def test_rankings_that_are_not_shown_to_beat_random_are_not_said_to_fail():
    result = explain("planted")
    against = result.faithfulness.against_random
    unsure = dataclasses.replace(against["occlusion"]["comprehensiveness"], better=False)
    changed = {**against, "occlusion": {**against["occlusion"], "comprehensiveness": unsure}}
    faithfulness = dataclasses.replace(result.faithfulness, against_random=changed)
    assert any("beat random ones; of occlusion this is not shown." in each for each in write(faithfulness=faithfulness))
