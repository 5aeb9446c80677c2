"""The verdict: sentences about an explanation that follow from its numbers by stated rules.

| what | rule |
|---|---|
| beats random | higher comprehensiveness than random rankings: the interval of the difference excludes 0 and p < .05 |
| does not beat random | it does not, and the interval of the difference ends below .01 (of values: of their spread) |
| cannot tell | neither |
| weaker than gradients | the interval of the paired difference from the best ranking by gradients is below 0, p < .05 |
| agrees as published | the mean tau is within the range of published models, above or below; clearly, if its interval is |
| depends on the weights | the interval of the mean distance under permutation lies above or below .05; else undecided |
| replaceable | the cost of equal weights: its interval lies below one point, above one point, or neither |

With fewer than 20 examples nothing is claimed, and the range of published models is not named. The first sentence sums them up.
"Support": the attention beats random, its agreement with leave-one-out is above 0, and the prediction depends on the weights.
"Contradict": it does not beat random, or it is weaker than gradients and the prediction does not depend on the weights.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

from limelight._formatting import (
    METRICS,
    format_count,
    format_decimals,
    format_differences,
    format_p_value,
    format_probability_change,
)
from limelight.evaluate.estimates import Estimate
from limelight.explanation.alternatives import TOLERANCE
from limelight.explanation.rankings import TITLES

# With fewer examples an interval is too uncertain itself: nothing is claimed.
MIN_EXAMPLES = 20
# A difference of probabilities below which two rankings count as equal, and a cost in points.
MARGIN = 0.01
# Mean tau of the attention of BiLSTMs, classes 0 and 1. With gradients: 20 newsgroups sports .07 and .21, SST .34 and .36,
# AG News .36 and .42, IMDb .44 and .43. With leave-one-out: 20 newsgroups .06 and .20, SST .27 and .32, IMDb .34 and .34.
PUBLISHED = {"gradients": (0.07, 0.44), "leave_one_out": (0.06, 0.34)}
_SOURCE = "BiLSTM classifiers of Jain and Wallace (2019)"
BY_GRADIENTS = ("gradient_times_input", "integrated_gradients")


def write(explanation: Any) -> list[str]:
    """Return the sentences of the verdict on an `Explanation`."""
    sentences = [
        _sum_up(explanation),
        _describe_removal(explanation),
        *_describe_rivals(explanation),
        *(
            _describe_agreement(name, estimate, explanation)
            for name, estimate in explanation.agreement.items()
            if name in PUBLISHED
        ),
        _describe_permutation(explanation),
        _describe_adversarial(explanation),
        _describe_uniform(explanation),
    ]
    return [sentence for sentence in sentences if sentence]


def judge_removal(explanation: Any, ranking: str = "attention") -> str:
    """Return "beats", "does not" or "cannot tell": whether a ranking beats random ones."""
    against = explanation.faithfulness.against_random[ranking]["comprehensiveness"]
    difference = against.difference
    if explanation.n < MIN_EXAMPLES:
        return "cannot tell"
    if against.better:
        return "beats"
    if difference.high is not None and difference.high < MARGIN * explanation.scale:
        return "does not"
    return "cannot tell"


def judge_dependence(explanation: Any) -> bool | None:
    """Return True if the prediction depends on which token has which weight, False if hardly; None if it cannot be told."""
    return _side(explanation.permutation, TOLERANCE) if explanation.n >= MIN_EXAMPLES else None


def judge_weakness(explanation: Any) -> bool:
    """Return True if attention is shown to be weaker than the best ranking by gradients."""
    difference = explanation.rival
    return (
        difference is not None
        and explanation.n >= MIN_EXAMPLES
        and difference["high"] is not None
        and difference["high"] < 0
        and difference["p_value"] < 0.05
    )


def _side(estimate: Estimate, threshold: float) -> bool | None:
    """Return True if the interval of an estimate lies above a threshold, False if below; else None."""
    if estimate.low is None or estimate.high is None:
        return None
    return True if estimate.low > threshold else False if estimate.high < threshold else None


def _sum_up(explanation: Any) -> str:
    removal, dependence = judge_removal(explanation), judge_dependence(explanation)
    agreement = explanation.agreement["leave_one_out"]
    agrees = agreement.low is not None and agreement.low > 0
    if removal == "does not" or (judge_weakness(explanation) and dependence is False):
        word = "contradict"
    elif removal == "beats" and agrees and dependence:
        word = "support"
    else:
        word = "cannot decide"
    claim = "that the attention shows which tokens the predictions depend on"
    if word == "cannot decide":
        claim = claim.replace("that the", "whether the")
    examples = f"{format_count(explanation.n)} example{'' if explanation.n == 1 else 's'}"
    few = f", fewer than {MIN_EXAMPLES}," if explanation.n < MIN_EXAMPLES else ""
    return f"On {examples}{few} these tests {word} {claim}."


def _describe_removal(explanation: Any) -> str:
    against = explanation.faithfulness.against_random["attention"]["comprehensiveness"]
    claim = {
        "beats": "The attention beats random rankings",
        "does not": "The attention does not beat random rankings",
        "cannot tell": "It cannot be told whether the attention beats random rankings",
    }[judge_removal(explanation)]
    unit = "" if explanation.output == "probabilities" else ", in the unit of the output"
    return (
        f"{claim} in comprehensiveness ({_difference(explanation, against.difference)}, "
        f"{format_p_value(against.p_value)}; tokens {explanation.perturbation}{unit})."
    )


def _describe_rivals(explanation: Any) -> list[str]:
    beaten = [name for name in explanation.faithfulness.against_random if judge_removal(explanation, name) == "beats"]
    others = [TITLES[name] for name in beaten if name != "attention"]
    missing = [
        TITLES[name] for name in explanation.faithfulness.against_random if name not in beaten and name != "attention"
    ]
    sentences = []
    if others:
        left_out = f"; of {_list(missing)} this is not shown" if missing else ""
        sentences.append(
            f"Of the other rankings, {_list(others)} beat{'s' if len(others) == 1 else ''} random ones{left_out}."
        )
    elif missing:
        sentences.append(f"Of the other rankings none is shown to beat random ones ({_list(missing)}).")
    rival = explanation.rival
    if rival is not None:
        difference = Estimate(rival["value"], rival["low"], rival["high"], "", explanation.n)
        evidence = f"({_difference(explanation, difference)}, {format_p_value(rival['p_value'])})"
        if judge_weakness(explanation):
            sentences.append(f"It finds less than {TITLES[rival['ranking']]} does {evidence}.")
        elif (
            explanation.n >= MIN_EXAMPLES and rival["low"] is not None and rival["low"] > 0 and rival["p_value"] < 0.05
        ):
            sentences.append(f"It finds more than {TITLES[rival['ranking']]} does {evidence}.")
        else:
            sentences.append(f"No difference between it and {TITLES[rival['ranking']]} could be shown {evidence}.")
    return sentences


def _describe_agreement(name: str, estimate: Estimate, explanation: Any) -> str:
    title = {"gradients": "gradients", "leave_one_out": "leave-one-out"}[name]
    low, high = PUBLISHED[name]
    if math.isnan(estimate.value):
        return f"The agreement of the attention with {title} is undefined ({estimate.method})."
    left_out = ""
    if count := explanation.without_tau.get(name, 0):
        of = "examples" if explanation.num_outputs == explanation.n else "outputs"
        left_out = f"; {format_count(count)} of {format_count(explanation.num_outputs)} {of} without a tau left out"
    tau = f"a mean Kendall tau of {_number(estimate.value)} ({_interval(estimate, _number)}{left_out})"
    if explanation.n < MIN_EXAMPLES or estimate.low is None or estimate.high is None:
        return f"The attention and {title} have {tau}."
    if low <= estimate.value <= high:
        place = "within"
    else:
        place = "above" if estimate.value > high else "below"
        place += "" if estimate.low > high or estimate.high < low else ", though not clearly,"
    return f"The attention agrees with {title} by {tau}, {place} the range of {_SOURCE}, {_number(low)} to {_number(high)}."


def _describe_permutation(explanation: Any) -> str:
    estimate = explanation.permutation
    claim = {
        True: "The predictions depend on which token has which weight",
        False: "The predictions hardly depend on which token has which weight",
        None: "It cannot be told whether the predictions depend on which token has which weight",
    }[judge_dependence(explanation)]
    return (
        f"{claim}: permuted weights move them by {_number(estimate.value)}{_unit(explanation)} ({_interval(estimate, _number)}; "
        f"the limit is {_number(TOLERANCE)})."
    )


def _describe_adversarial(explanation: Any) -> str:
    adversarial = explanation.adversarial
    if adversarial is None:
        return ""
    share, divergence = adversarial["share"], adversarial["divergence"]
    return (
        f"For {100 * share.value:.0f} % of the examples ({_interval(share, _percent)}) a search found quite different attention, "
        f"at least half as far away as possible, with the same prediction within {_number(TOLERANCE)}{_unit(explanation)}; the "
        f"mean divergence found is {_number(divergence.value)} of at most .69."
    )


def _describe_uniform(explanation: Any) -> str:
    uniform = explanation.uniform
    cost = uniform.get("cost")
    if cost is None:
        changed = uniform.get("changed")
        if changed is None:
            moved = uniform["moved"]
            return (
                f"Equal weights move the predictions by {_number(moved.value)}{_unit(explanation)} "
                f"({_interval(moved, _number)})."
            )
        return (
            f"With equal weights {100 * changed.value:.1f} % of the predicted classes change ({_interval(changed, _percent)}); "
            "the cost needs the true classes."
        )
    metric = METRICS[uniform["metric"]]
    unit = " points" if metric.percent else ""
    value, low, high = format_differences([cost.value, cost.low, cost.high], metric, digits=2)
    if cost.low is None or cost.high is None:
        return f"The cost of equal weights in {metric.label} is {value}{unit} (no interval: {cost.method})."
    interval = f"95 % CI {low} to {high}"
    side = _side(cost, MARGIN) if metric.percent and explanation.n >= MIN_EXAMPLES else None
    if side is False:
        claim = "The weights can be replaced by equal ones"
    elif side is True:
        claim = "The weights cannot be replaced by equal ones"
    else:
        claim = (
            "It cannot be told whether the weights can be replaced by equal ones" if metric.percent else "Equal weights"
        )
    joint = ", without training again, at a cost of" if metric.percent else " cost"
    of_window = ", in units of the scale of the window" if uniform.get("is_scaled") else ""
    return f"{claim}{joint} {value}{unit} of {metric.label}{of_window} ({interval})."


def to_rules() -> Mapping[str, Any]:
    """Return the numbers of the rules, for results that say by which they were judged."""
    return {
        "margin": MARGIN,
        "tolerance": TOLERANCE,
        "min_examples": MIN_EXAMPLES,
        "published": {name: list(bounds) for name, bounds in PUBLISHED.items()},
        "by_gradients": list(BY_GRADIENTS),
    }


def _unit(explanation: Any) -> str:
    """Return the unit of distances of values in words; probabilities need none."""
    return "" if explanation.output == "probabilities" else " times the spread of the predictions"


def _difference(explanation: Any, estimate: Estimate) -> str:
    """Return a difference of probabilities with two decimals, or of values with the decimals that they need, and its interval."""
    ends = [] if estimate.low is None or estimate.high is None else [estimate.low, estimate.high]
    numbers = [estimate.value, *ends]
    if explanation.output == "probabilities":
        written = [format_probability_change(number) for number in numbers]
    else:
        written = format_differences(numbers, METRICS["mae"], digits=2)
    if not ends:
        return f"difference {written[0]}, no interval" + (f": {estimate.method}" if estimate.method else "")
    return f"difference {written[0]}, {100 * estimate.confidence:g} % CI {written[1]} to {written[2]}"


def _number(value: float) -> str:
    """Return a number between -1 and 1 with two decimals and no leading zero."""
    text = f"{abs(value):.2f}"
    text = text[1:] if text.startswith("0.") else text
    return f"−{text}" if round(value, 2) < 0 else text


def _percent(value: float) -> str:
    return f"{format_decimals(100 * value, 0)} %"


def _interval(estimate: Estimate, write: Callable[[float], str]) -> str:
    if estimate.low is None or estimate.high is None:
        return f"no interval: {estimate.method}"
    return f"{100 * estimate.confidence:g} % CI {write(estimate.low)} to {write(estimate.high)}"


def _list(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
