"""The result of an explanation: its numbers, a table of them and the verdict."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from os import PathLike
from typing import Any

from limelight import _files
from limelight._formatting import format_decimals, to_finite
from limelight.evaluate import Estimate, Faithfulness
from limelight.evaluate._faithfulness import MEASURES
from limelight.explanation import verdict
from limelight.explanation.rankings import TITLES, Scores

SCHEMA = 1


@dataclasses.dataclass(frozen=True)
class Explanation:
    """The result of `explain`.

    Args:
        model: the name of the model or its class.
        n: the number of examples, each a source text of a translator, or a series of a forecaster that has several.
        num_outputs: the number of outputs that were explained, of which an example may have several.
        tokens: the mean number of tokens of an example.
        layer: the key of the attention that is explained.
        perturbation: how tokens are removed.
        output: "probabilities", or "values" if the model is a regressor.
        explained: the output whose probability or value is explained, in words.
        scale: the unit of distances: 1 for probabilities, the spread of the predictions for values.
        faithfulness: comprehensiveness, sufficiency, log-odds and the areas of each ranking, beside random tokens.
        rival: the paired difference in comprehensiveness between attention and the best ranking by gradients: `ranking`, `value`,
            `low`, `high`, `p_value`; None without one.
        agreement: mean tau-b of attention with "gradients" (attention held fixed) and "leave_one_out", both as absolute values.
        without_tau: by the same names, the number of outputs without a tau, which are left out: a ranking is constant there.
        agreement_by_class: the same of the examples of each predicted class, by its name.
        permutation: mean over examples of the median distance that permuted weights move the prediction.
        adversarial: `divergence`, the mean largest divergence of attention with the same prediction, and `share`, that of the
            examples for which it is at least half of the largest possible; None if it was not searched.
        uniform: what equal weights do: `moved`, for classes `changed`; with targets `metric` and `cost`, and `is_scaled` where
            it is in units of the scale of a window.
        variables: of a forecaster of several variables the mean distance that the forecast moves without each, by its name.
        plausibility: agreement of each ranking with marked tokens; empty without marks.
        rankings: the scores of each ranking, an array (T,) for each output; NaN at tokens around a text, such as [CLS].
        left_out: the rankings and tests that do not apply to the model, each with the reason.
        verdict: sentences that follow from the numbers; `limelight.explanation.verdict` states the rules.
        cost: forward and backward passes of one example, and seconds.
        indices: the example of each output, by its place in the data.
        words: the words of the example of each output, if there are any.
        outputs: what each output is, such as a unit of a translation; None if examples have one each.
    """

    model: str
    n: int
    num_outputs: int
    tokens: float
    layer: str
    perturbation: str
    output: str
    explained: str
    scale: float
    faithfulness: Faithfulness
    rival: Mapping[str, Any] | None
    agreement: Mapping[str, Estimate]
    agreement_by_class: Mapping[str, Mapping[str, Estimate]]
    permutation: Estimate
    adversarial: Mapping[str, Estimate] | None
    uniform: Mapping[str, Any]
    variables: Mapping[str, Estimate]
    plausibility: Mapping[str, Mapping[str, Estimate]]
    rankings: Mapping[str, Scores] = dataclasses.field(repr=False)
    without_tau: Mapping[str, int] = dataclasses.field(default_factory=dict)
    left_out: Mapping[str, str] = dataclasses.field(default_factory=dict)
    verdict: Sequence[str] = ()
    cost: Mapping[str, float] = dataclasses.field(default_factory=dict)
    indices: Sequence[int] = dataclasses.field(default=(), repr=False)
    words: Sequence[Sequence[str]] | None = dataclasses.field(default=None, repr=False)
    outputs: Sequence[str] | None = dataclasses.field(default=None, repr=False)

    @property
    def table(self) -> list[dict[str, Any]]:
        """A row for each ranking: its name, and each measure with its interval and, against random, its p value."""
        rows = []
        for name, measures in self.faithfulness.measures.items():
            row: dict[str, Any] = {"ranking": name, "title": TITLES[name]}
            for measure, estimate in (*measures.items(), *self.plausibility.get(name, {}).items()):
                row[measure] = to_finite(estimate.value)
                row[f"{measure}_low"], row[f"{measure}_high"] = estimate.low, estimate.high
            for measure, against in self.faithfulness.against_random.get(name, {}).items():
                row[f"{measure}_p_value"], row[f"{measure}_better"] = to_finite(against.p_value), against.better
            rows.append(row)
        return rows

    def to_dict(self) -> dict[str, Any]:
        """Return values that JSON can hold. The scores of single tokens are left out."""
        return {
            "schema_version": SCHEMA,
            "model": self.model,
            "n": self.n,
            "num_outputs": self.num_outputs,
            "tokens": self.tokens,
            "layer": self.layer,
            "perturbation": self.perturbation,
            "output": self.output,
            "explained": self.explained,
            "scale": self.scale,
            "verdict": list(self.verdict),
            "table": self.table,
            "faithfulness": self.faithfulness.to_dict(),
            "rival": None if self.rival is None else dict(self.rival),
            "agreement": _to_dicts(self.agreement),
            "without_tau": dict(self.without_tau),
            "agreement_by_class": {name: _to_dicts(each) for name, each in self.agreement_by_class.items()},
            "permutation": self.permutation.to_dict(),
            "adversarial": None if self.adversarial is None else _to_dicts(self.adversarial),
            "uniform": _to_dicts(self.uniform),
            "variables": _to_dicts(self.variables),
            "plausibility": {name: _to_dicts(each) for name, each in self.plausibility.items()},
            "left_out": dict(self.left_out),
            "rules": dict(verdict.to_rules()),
            "cost": dict(self.cost),
        }

    def to_json(self, path: str | PathLike[str] | None = None) -> str:
        """Return the result as JSON, and write it to a file if a path is given."""
        document = self.to_dict()
        if path is not None:
            _files.write_json(path, document)
        return json.dumps(document, indent=1, allow_nan=False)

    def __str__(self) -> str:
        """Return the table and the verdict as text."""
        columns = [name for name in MEASURES if name in self.faithfulness.measures["random"]]
        columns += list(next(iter(self.plausibility.values()), {}))
        titles = {
            "alignment_error_rate": "alignment error",
            "log_odds": "log-odds",
            "deletion_auc": "deletion",
            "insertion_auc": "insertion",
            "auprc": "AUPRC",
        }
        header = [f"{titles.get(name, name.replace('_', ' ')):>17}" for name in columns]
        width = max(len(title) for title in TITLES.values())
        lines = [f"{'':{width}}" + "".join(header)]
        for row in self.table:
            cells = []
            for name in columns:
                star = "*" if row.get(f"{name}_better") else " "
                cells.append(f"{format_decimals(row.get(name)):>16}{star}")
            lines.append((f"{row['title']:{width}}" + "".join(cells)).rstrip())
        lines += ["", f"* better than random tokens; tokens {self.perturbation}; attention of {self.layer!r}", ""]
        if self.variables:
            lines += [*(f"without {name} the forecast moves by {each}" for name, each in self.variables.items()), ""]
        lines += [f"left out: {TITLES.get(name, name)}: {reason}" for name, reason in self.left_out.items()]
        return "\n".join([*lines, *([""] if self.left_out else []), *self.verdict])


def _to_dicts(estimates: Mapping[str, Any]) -> dict[str, Any]:
    return {name: each.to_dict() if isinstance(each, Estimate) else each for name, each in estimates.items()}
