"""Test in one call whether the attention of a model explains its predictions."""

import contextlib
import dataclasses
import json
import math
import time
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np

from limelight import _files, evaluate
from limelight._formatting import NARROW_SPACE, format_count, format_decimals, format_duration, to_finite
from limelight._progress import Progress
from limelight.evaluate import Estimate, Faithfulness
from limelight.evaluate._faithfulness import MEASURES
from limelight.evaluate.estimates import average_groups, bootstrap_means, wilson
from limelight.evaluate.perturbation import output_distance
from limelight.explanation import forecasts, translations, verdict
from limelight.explanation.alternatives import find_adversarial, permute_attention
from limelight.explanation.checkpoint import Checkpoint, compute_fingerprint
from limelight.explanation.instrumented import InstrumentedModel
from limelight.explanation.rankings import (
    TITLES,
    Attributions,
    Scores,
    compute_attributions,
    list_rankings,
    remove_tokens,
)
from limelight.explanation.subjects import Subject, check_fitted, make_subject
from limelight.models import Forecaster, Translator

SCHEMA = 1
_SHARES, _STEPS, _DRAWS = (0.01, 0.05, 0.1, 0.2, 0.5), 10, 5
# Attention counts as quite different from another if it is at least half as far away as possible.
_DIFFERENT = 0.5 * math.log(2)


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
        agreement_by_class: the same of the examples of each predicted class, by its name.
        permutation: mean over examples of the median distance that permuted weights move the prediction.
        adversarial: `divergence`, the mean largest divergence of attention with the same prediction, and `share`, that of the
            examples for which it is at least half of the largest possible; None if it was not searched.
        uniform: what equal weights do: `moved`, for classes `changed`; with targets `metric` and `cost`.
        variables: of a forecaster of several variables the mean distance that the forecast moves without each, by its name.
        plausibility: agreement of each ranking with marked tokens; empty without marks.
        rankings: the scores of each ranking, an array (T,) for each output.
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
            lines.append(f"{row['title']:{width}}" + "".join(cells))
        lines += ["", f"* better than random tokens; tokens {self.perturbation}; attention of {self.layer!r}", ""]
        if self.variables:
            lines += [*(f"without {name} the forecast moves by {each}" for name, each in self.variables.items()), ""]
        lines += [f"left out: {TITLES.get(name, name)}: {reason}" for name, reason in self.left_out.items()]
        return "\n".join([*lines, *([""] if self.left_out else []), *self.verdict])


def explain(
    model: Any,
    X: Any,
    y: Any = None,
    *,
    marks: Any = None,
    tokens: Any = None,
    layer: str | None = None,
    perturbation: Any = None,
    output: str | None = None,
    sample: int | None = 200,
    rankings: Sequence[str] | None = None,
    permutations: int = 100,
    restarts: int = 3,
    iterations: int = 60,
    ig_steps: int = 32,
    output_steps: int | None = 4,
    horizon_step: int | None = None,
    folds: int | None = None,
    known: Any = None,
    resamples: int = 1000,
    seed: int = 0,
    checkpoint: str | PathLike[str] | None = None,
    verbose: bool = True,
    progress: Progress | None = None,
) -> Explanation:
    """Test whether the attention of a model explains its predictions.

    Tokens are removed in the order of attention and of other rankings; attention is compared with gradients and with
    leave-one-out; its weights are permuted, made equal, and replaced by very different ones. Each number has an interval over
    examples, and the sentences of `verdict` follow from the numbers by stated rules.

    Of a `Translator` each output step is explained on its own: the probability of the unit that the model wrote there, after the
    units that it wrote before; the tokens are those of the source. Of a `Forecaster` it is the point forecast, in the scale of
    its window; the tokens are the past steps, and the naive forecast that the model starts from counts as part of it.

    Args:
        model: a fitted estimator of `limelight.models`, or a built Keras model of one input.
        X: the examples, as the estimator takes them; for a Keras model ids (B, T) padded by 0, steps (B, T, C), or a list of
            arrays (T, ...).
        y: the targets, for the cost of equal weights; of a translator the references, for plausibility. Series hold their own.
        marks: for each example bool (T,), True at tokens that people marked as the reason; for plausibility. For a translator the
            links (n, 2) by hand of the words of the source and of the reference `y`: their steps are explained besides.
        tokens: for a Keras model, the words of each example.
        layer: the key of the attention in `limelight.capture`; by default the last pooling that reads the tokens, or else the
            last self-attention.
        perturbation: "replace" writes the unknown word, or the mean of the training series, in the place of a token; "delete"
            removes it, so that the positions of those behind it change; or `evaluate.Replace(...)`. By default "replace", and
            "delete" for a Keras model of ids, whose unknown word is not known. Try both.
        output: "probabilities" or "values", for a Keras model whose outputs do not say it.
        sample: take at most so many examples, at random; None for all. Of a forecaster they are windows.
        rankings: the names of the rankings to compare with attention; by default all that apply. Attention is always one.
        permutations: permutations of the weights of each example.
        restarts, iterations: of the search for other attention; `restarts=0` for none.
        ig_steps: points at which integrated gradients are evaluated.
        output_steps: of each translation take at most so many steps, at random; None for all. Intervals are over source texts.
        horizon_step: of a forecast explain this step alone, from 1; the mean over all steps by default.
        folds: of each series explain the last so many forecasts, one horizon apart; as many as a study tests by default: those
            of the last fifth, or one of each of at least 30 series. Intervals are over series if there are several.
        known: known covariates after the ends of the series, as `Forecaster.predict` takes them.
        resamples: bootstrap resamples of each interval.
        seed: seed of all random numbers.
        checkpoint: a folder in which finished parts are stored, and removed at the end: if the call is stopped, the same call
            goes on from there. Parts of another model, other data or settings are not used.
        verbose: print the cost and a progress bar to stderr.
        progress: prints in place of a new one; the caller starts and stops it.

    Returns:
        The result. `print(result)` shows its table and the verdict.

    Raises:
        TypeError: `model` is neither an estimator nor a Keras model.
        ValueError: the examples do not fit the model, or it has no attention with a key for each token.
        OSError: the folder of the checkpoint cannot be written.

    Example:
        >>> import limelight as ll
        >>> texts = ["a good film", "a bad film", "so good", "so bad"] * 5
        >>> model = ll.models.TextClassifier(encoder=None, epochs=1, training={"epoch_steps": 1}, verbose=False)
        >>> _ = model.fit(texts, ["pos", "neg", "pos", "neg"] * 5)
        >>> result = ll.explanation.explain(model, texts[:4], restarts=0, permutations=5, verbose=False)
        >>> result.layer, result.perturbation
        ('attention', 'replaced by the unknown token')

    References:
        Jain and Wallace 2019, arXiv:1902.10186; Wiegreffe and Pinter 2019, arXiv:1908.04626; DeYoung et al. 2020,
        arXiv:1911.03429; Sundararajan et al. 2017, arXiv:1703.01365 (integrated gradients).
    """
    own_progress = Progress(quiet=not verbose) if progress is None else None
    progress = progress or own_progress or Progress(quiet=True)
    started = time.perf_counter()
    is_forecaster, count = isinstance(model, Forecaster), len(X)
    if not count or (sample is not None and sample < 1):
        raise ValueError(f"There must be an example to explain. Received: {count} examples, sample={sample}.")
    chosen = None
    if sample is not None and sample < count and not is_forecaster:
        chosen = np.sort(np.random.default_rng(seed).choice(count, sample, replace=False))
    if not isinstance(model, keras.Model):
        check_fitted(model)
    if is_forecaster:
        _check_left_out(y=y, marks=marks, tokens=tokens, output=output)
        subject = forecasts.make_subject(
            model, X, known, perturbation=perturbation, sample=sample, folds=folds, horizon_step=horizon_step, seed=seed
        )
    elif isinstance(model, Translator):
        _check_left_out(tokens=tokens, output=output)
        if marks is not None:
            translations.check_links(model, y)
        rows = np.arange(count) if chosen is None else chosen
        subject = translations.make_subject(
            model, X, perturbation=perturbation, indices=rows, output_steps=output_steps, seed=seed
        )
    else:
        subject = make_subject(model, X, tokens=tokens, perturbation=perturbation, output=output, indices=chosen)
    instrumented = InstrumentedModel(subject, layer)
    names, left_out = _choose_rankings(instrumented, rankings)
    gold, targets = _take(marks, chosen, count, "marks"), _take(y, chosen, count, "y")
    lengths = [len(sequence) for sequence in subject.sequences]
    statistics: dict[str, Any] = {"resamples": resamples, "seed": seed}
    settings = {
        "layer": instrumented.key, "rankings": names, "permutations": permutations, "restarts": restarts,
        "iterations": iterations, "ig_steps": ig_steps, "seed": seed,
    }  # fmt: skip
    folder = None
    if checkpoint is not None:
        folder = Path(checkpoint) / compute_fingerprint(model, subject, settings)[:32]
    with own_progress or contextlib.nullcontext(), Checkpoint(folder, subject) as stored:
        _announce_cost(subject, stored, lengths, names, permutations, restarts * iterations, ig_steps, progress)
        measured = _run_tests(
            subject,
            instrumented,
            names,
            progress,
            stored,
            permutations=permutations,
            restarts=restarts,
            iterations=iterations,
            ig_steps=ig_steps,
            settings=statistics,
        )
        plausibility: dict[str, Any] = {}
        if gold is not None and isinstance(model, Translator):
            progress.start_run("links by hand", 0)
            plausibility = translations.compare_with_links(
                model, X, targets, gold, names, layer=layer, perturbation=perturbation, indices=rows,
                output_steps=output_steps, ig_steps=ig_steps, settings=statistics, checkpoint=folder,
            )  # fmt: skip
        elif gold is not None:
            plausibility = evaluate.plausibility(measured.rankings, gold, **statistics)
    attributions, computed, faithfulness = measured.attributions, measured.rankings, measured.faithfulness
    others = {"gradients": attributions.gradients, "leave_one_out": measured.leave_one_out}
    taus = {name: (computed["attention"], [np.abs(each) for each in other]) for name, other in others.items()}
    classes = subject.classes or [str(index) for index in range(attributions.outputs.shape[1])]
    explanation = Explanation(
        model=subject.name,
        n=faithfulness.n,
        num_outputs=len(lengths),
        tokens=float(np.mean(lengths)),
        layer=instrumented.title,
        perturbation=subject.perturbation.name,
        output=subject.output,
        explained=subject.explained,
        scale=measured.scale,
        faithfulness=faithfulness,
        rival=_compare_with_gradients(faithfulness, statistics),
        agreement={name: evaluate.agreement(*pair, groups=subject.groups, **statistics) for name, pair in taus.items()},
        agreement_by_class=(
            _agree_by_class(taus, attributions.outputs.argmax(1), classes, statistics)
            if subject.output == "probabilities" and subject.labels is None
            else {}
        ),
        permutation=_mean(measured.permutation, subject, statistics),
        adversarial=measured.adversarial,
        uniform=_compare_uniform(subject, attributions, targets, measured.scale, statistics),
        variables={
            name: _mean(moved / measured.scale, subject, statistics)
            for name, moved in forecasts.measure_variables(subject).items()
        },
        plausibility=plausibility,
        rankings=computed,
        left_out={**left_out, **subject.left_out},
        cost={
            "forward": instrumented.num_forward + subject.num_predicted,
            "backward": instrumented.num_backward,
            "seconds": time.perf_counter() - started,
        },
        indices=subject.origins or (list(range(count)) if chosen is None else chosen.tolist()),
        words=subject.tokens,
        outputs=subject.outputs,
    )
    result = dataclasses.replace(explanation, verdict=verdict.write(explanation))
    progress.write(f"explained in {format_duration(result.cost['seconds'])}".replace(NARROW_SPACE, " "))
    stored.remove()
    return result


def _check_left_out(**arguments: Any) -> None:
    """Raise for an argument that the estimator has no use for."""
    given = [name for name, value in arguments.items() if value is not None]
    if given:
        raise ValueError(f"`{given[0]}` must be left out for this model, which has its own. Received: one.")


def _announce_cost(
    subject: Subject,
    stored: Checkpoint,
    lengths: Sequence[int],
    names: Sequence[str],
    permutations: int,
    searches: int,
    ig_steps: int,
    progress: Progress,
) -> None:
    """Print the largest number of passes and the time that they take, and set the total of the progress."""
    forward, backward = _estimate_cost(lengths, names, permutations, searches, ig_steps)
    # A backward pass takes about twice as long as a forward one, and needs one before.
    seconds = (forward + 3 * backward) * subject.measure_seconds()
    num_examples = len(lengths) if subject.groups is None else len(np.unique(subject.groups))
    outputs = "" if num_examples == len(lengths) else f", {format_count(len(lengths))} outputs"
    line = (
        f"{subject.name}: {format_count(num_examples)} examples{outputs} of {np.mean(lengths):.0f} tokens on average, at most "
        f"{format_count(forward)} forward and {format_count(backward)} backward passes of one example, about "
        f"{format_duration(seconds)}"
    )
    progress.write(line.replace(NARROW_SPACE, " "))
    if not stored.is_empty:
        progress.write("going on from the parts that were stored earlier")
    progress.set_total(forward + backward)


class _Measurements(NamedTuple):
    """The results of all tests of the examples, most of them without intervals."""

    attributions: Attributions
    rankings: dict[str, Scores]
    leave_one_out: list[np.ndarray]
    faithfulness: Faithfulness
    scale: float
    permutation: np.ndarray
    adversarial: dict[str, Estimate] | None


def _run_tests(
    subject: Subject,
    instrumented: InstrumentedModel,
    names: Sequence[str],
    progress: Progress,
    stored: Checkpoint,
    *,
    permutations: int,
    restarts: int,
    iterations: int,
    ig_steps: int,
    settings: Mapping[str, Any],
) -> _Measurements:
    """Compute the rankings, remove tokens in their order, and replace the attention."""
    progress.start_run("gradients", 0)
    attributions = compute_attributions(instrumented, names, ig_steps, progress.step, stored)

    def on_predict(count: int) -> None:
        stored.write_if_due()
        progress.step(count)

    subject.on_predict = on_predict
    progress.start_run("leave-one-out", 0)
    computed = {**attributions.rankings, **remove_tokens(instrumented, names)}
    computed = {name: computed[name] for name in names if name in computed}
    removal: dict[str, Any] = {"perturbation": subject.perturbation, "output": subject.output}
    distances = evaluate.leave_one_out(subject.predict, subject.sequences, **removal)
    progress.start_run("removal of tokens", 0)
    faithfulness = evaluate.faithfulness(
        subject.predict,
        subject.sequences,
        computed,
        shares=_SHARES,
        steps=_STEPS,
        draws=_DRAWS,
        labels=subject.labels,
        groups=subject.groups,
        **removal,
        **settings,
    )
    spread = float(attributions.outputs.std(0).mean())
    scale = 1.0 if subject.output == "probabilities" else spread or 1.0
    progress.start_run("permuted weights", 0)
    seed = settings["seed"]
    medians = permute_attention(instrumented, attributions, permutations, scale, seed, progress.step, stored)
    adversarial = None
    if restarts:
        progress.start_run("other attention", 0)
        found = find_adversarial(
            instrumented,
            attributions,
            restarts=restarts,
            iterations=iterations,
            scale=scale,
            seed=seed,
            on_step=progress.step,
            checkpoint=stored,
        )
        different = found.divergence >= _DIFFERENT
        adversarial = {
            "divergence": _mean(found.divergence, subject, settings),
            "share": _share(different, subject, settings),
        }
    return _Measurements(attributions, computed, distances, faithfulness, scale, medians, adversarial)


def _choose_rankings(model: InstrumentedModel, rankings: Sequence[str] | None) -> tuple[list[str], dict[str, str]]:
    """Return the rankings to compute, and those that do not apply with the reason."""
    available, reasons = list_rankings(model)
    if rankings is None:
        return available, reasons
    unknown = [name for name in rankings if name not in available]
    if unknown:
        reason = f": {reasons[unknown[0]]}" if unknown[0] in reasons else ""
        raise ValueError(f"`rankings` must be of {', '.join(available)}. Received: {unknown[0]!r}{reason}.")
    return [name for name in available if name == "attention" or name in rankings], {}


def _take(values: Any, chosen: np.ndarray | None, count: int, name: str) -> Any:
    """Return the values of the chosen examples."""
    if values is None:
        return None
    values = values.to_numpy() if hasattr(values, "to_numpy") else values
    if len(values) != count:
        raise ValueError(f"`{name}` must have a value for each of {count} examples. Received: {len(values)}.")
    return values if chosen is None else [values[index] for index in chosen]


def _estimate_cost(
    lengths: Sequence[int], names: Sequence[str], permutations: int, searches: int, ig_steps: int
) -> tuple[int, int]:
    """Return the largest number of forward and backward passes of one example."""
    removals = 2 * len(_SHARES) + 2 * (_STEPS + 1)
    forward = 3 + removals * (len(names) + _DRAWS) + permutations
    backward = 3 + ig_steps * ("integrated_gradients" in names) + searches
    return len(lengths) * forward + 4 * sum(lengths), len(lengths) * backward


def _mean(values: np.ndarray, subject: Subject, settings: Mapping[str, Any]) -> Estimate:
    """Return the mean over examples with its interval."""
    return bootstrap_means({"mean": average_groups(values, subject.groups)}, **settings)["mean"]


def _share(chosen: np.ndarray, subject: Subject, settings: Mapping[str, Any]) -> Estimate:
    """Return the share of the outputs that are chosen, with its interval."""
    if subject.groups is None:
        return wilson(int(chosen.sum()), len(chosen))
    return _mean(chosen.astype(np.float64), subject, settings)


def _agree_by_class(
    taus: Mapping[str, Any], predicted: np.ndarray, classes: Sequence[str], settings: Mapping[str, Any]
) -> dict[str, dict[str, Estimate]]:
    """Return the agreement of the examples of each predicted class."""
    results = {}
    for label in np.unique(predicted):
        indices = np.flatnonzero(predicted == label)
        results[classes[label]] = {
            name: evaluate.agreement([first[i] for i in indices], [second[i] for i in indices], **settings)
            for name, (first, second) in taus.items()
        }
    return results


def _compare_with_gradients(faithfulness: Faithfulness, settings: Mapping[str, Any]) -> dict[str, Any] | None:
    """Compare the comprehensiveness of attention with that of the best ranking by gradients, paired by example."""
    candidates = [name for name in verdict.BY_GRADIENTS if name in faithfulness.measures]
    if not candidates:
        return None
    best = max(candidates, key=lambda name: faithfulness.measures[name]["comprehensiveness"].value)
    against = faithfulness.compare("attention", candidates, **settings)[best]
    difference = against.difference
    return {
        "ranking": best,
        "value": difference.value,
        "low": difference.low,
        "high": difference.high,
        "p_value": against.p_value,
    }


def _compare_uniform(
    subject: Subject, attributions: Any, targets: Any, scale: float, settings: Mapping[str, Any]
) -> dict[str, Any]:
    """Return what equal weights do to the predictions, and with targets what they cost."""
    before, after = attributions.outputs, attributions.uniform
    moved = output_distance(after, before, subject.output) / scale
    result: dict[str, Any] = {"moved": _mean(moved, subject, settings)}
    if subject.labels is not None:
        return result
    if subject.output == "probabilities":
        changed = int((before.argmax(1) != after.argmax(1)).sum())
        result["changed"] = wilson(changed, len(before))
    if subject.targets is not None:
        # The mean of an example is the mean absolute difference of its errors from 0.
        errors = [average_groups(np.abs(each - subject.targets).mean(1), subject.groups) for each in (before, after)]
        metric, truth, (first, second) = "mae", np.zeros(len(errors[0])), errors
    elif targets is None:
        return result
    else:
        truth = subject.encode(targets)
        metric = "accuracy" if subject.output == "probabilities" else "mae"
        first, second = (before, after) if metric == "accuracy" else (subject.decode(before), subject.decode(after))
    comparison = evaluate.paired(
        truth, first, second, metric=metric, names=("the weights", "equal weights"), **settings
    )
    # A cost is positive if equal weights are worse.
    sign = 1 if metric == "accuracy" else -1
    difference = comparison.difference
    ends = [None if end is None else sign * end for end in (difference.low, difference.high)]
    low, high = ends if sign > 0 else ends[::-1]
    cost = dataclasses.replace(difference, value=sign * difference.value, low=low, high=high)
    return {**result, "metric": metric, "cost": cost, "p_value": comparison.p_value}


def _to_dicts(estimates: Mapping[str, Any]) -> dict[str, Any]:
    return {name: each.to_dict() if isinstance(each, Estimate) else each for name, each in estimates.items()}
