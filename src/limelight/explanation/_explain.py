"""Test in one call whether the attention of a model explains its predictions."""

import contextlib
import dataclasses
import time
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import keras
import numpy as np

from limelight import evaluate
from limelight._formatting import NARROW_SPACE, format_count, format_duration
from limelight._progress import Progress
from limelight.explanation import forecasts, translations, verdict
from limelight.explanation._explanation import Explanation
from limelight.explanation.checkpoint import Checkpoint, compute_fingerprint
from limelight.explanation.instrumented import InstrumentedModel
from limelight.explanation.measurements import Settings, estimate_cost, measure, summarize
from limelight.explanation.rankings import list_rankings
from limelight.explanation.subjects import Subject, check_fitted, make_subject
from limelight.models import Forecaster, Translator
from limelight.models.inputs import warn_of_cut


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
    started = time.perf_counter()
    own_progress = Progress(quiet=not verbose) if progress is None else None
    progress = progress or own_progress or Progress(quiet=True)
    chosen = _choose_examples(model, len(X), sample, seed)
    # A forecaster reads the end of a series, as far back as it was trained.
    if hasattr(model, "inputs_") and not isinstance(model, Forecaster):
        warn_of_cut(model._input_limit, model.count_cut(X), len(X), stacklevel=2)
    subject = _make_subject(
        model, X, y, chosen, marks=marks, tokens=tokens, perturbation=perturbation, output=output, sample=sample,
        output_steps=output_steps, horizon_step=horizon_step, folds=folds, known=known, seed=seed,
    )  # fmt: skip
    instrumented = InstrumentedModel(subject, layer)
    names, left_out = _choose_rankings(instrumented, rankings)
    gold, targets = _take(marks, chosen, len(X), "marks"), _take(y, chosen, len(X), "y")
    settings = Settings(names, permutations, restarts, iterations, ig_steps, resamples, seed)
    folder = None
    if checkpoint is not None:
        described = settings.describe(instrumented.key)
        folder = Path(checkpoint) / compute_fingerprint(model, subject, described)[:32]
    with own_progress or contextlib.nullcontext(), Checkpoint(folder, subject) as stored:
        _announce_cost(subject, stored, settings, progress)
        measured = measure(instrumented, settings, progress, stored)
        plausibility: dict[str, Any] = {}
        if gold is not None and isinstance(model, Translator):
            progress.start_run("links by hand", 0)
            plausibility = translations.compare_with_links(
                model, X, targets, gold, names, layer=layer, perturbation=perturbation,
                indices=_get_indices(chosen, len(X)), output_steps=output_steps, ig_steps=ig_steps,
                settings=settings.statistics, checkpoint=folder,
            )  # fmt: skip
        elif gold is not None:
            plausibility = evaluate.plausibility(measured.rankings, gold, **settings.statistics)
    explanation = dataclasses.replace(
        summarize(instrumented, measured, targets, settings),
        plausibility=plausibility,
        left_out={**left_out, **subject.left_out},
        indices=subject.origins or _get_indices(chosen, len(X)).tolist(),
        cost=_count_cost(instrumented, time.perf_counter() - started),
    )
    progress.write(f"explained in {format_duration(explanation.cost['seconds'])}".replace(NARROW_SPACE, " "))
    stored.remove()
    return dataclasses.replace(explanation, verdict=verdict.write(explanation))


def _choose_examples(model: Any, count: int, sample: int | None, seed: int) -> np.ndarray | None:
    """Return the indices of the examples to explain, sorted; None for all, or for windows, which are chosen later.

    Raises:
        ValueError: there is none.
    """
    if not count or (sample is not None and sample < 1):
        raise ValueError(f"There must be an example to explain. Received: {count} examples, sample={sample}.")
    if sample is None or sample >= count or isinstance(model, Forecaster):
        return None
    return np.sort(np.random.default_rng(seed).choice(count, sample, replace=False))


def _get_indices(chosen: np.ndarray | None, count: int) -> np.ndarray:
    return np.arange(count) if chosen is None else chosen


def _make_subject(
    model: Any,
    X: Any,
    y: Any,
    chosen: np.ndarray | None,
    *,
    marks: Any,
    tokens: Any,
    perturbation: Any,
    output: str | None,
    sample: int | None,
    output_steps: int | None,
    horizon_step: int | None,
    folds: int | None,
    known: Any,
    seed: int,
) -> Subject:
    """Return the subject of a model. Arguments that it has no use for must be None."""
    if not isinstance(model, keras.Model):
        check_fitted(model)
    if isinstance(model, Forecaster):
        _check_left_out(y=y, marks=marks, tokens=tokens, output=output)
        return forecasts.make_subject(
            model, X, known, perturbation=perturbation, sample=sample, folds=folds, horizon_step=horizon_step, seed=seed
        )
    if isinstance(model, Translator):
        _check_left_out(tokens=tokens, output=output)
        if marks is not None:
            translations.check_links(model, y)
        indices = _get_indices(chosen, len(X))
        return translations.make_subject(
            model, X, perturbation=perturbation, indices=indices, output_steps=output_steps, seed=seed
        )
    return make_subject(model, X, tokens=tokens, perturbation=perturbation, output=output, indices=chosen)


def _check_left_out(**arguments: Any) -> None:
    """Raise for an argument that the estimator has no use for."""
    given = [name for name, value in arguments.items() if value is not None]
    if given:
        raise ValueError(f"`{given[0]}` must be left out for this model, which has its own. Received: one.")


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


def _announce_cost(subject: Subject, stored: Checkpoint, settings: Settings, progress: Progress) -> None:
    """Print the largest number of passes and the time that they take, and set the total of the progress."""
    lengths = [len(sequence) for sequence in subject.sequences]
    forward, backward = estimate_cost(lengths, settings)
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


def _count_cost(model: InstrumentedModel, seconds: float) -> dict[str, float]:
    """Return the forward and backward passes of one example that were run, and the time."""
    return {
        "forward": model.num_forward + model.subject.num_predicted,
        "backward": model.num_backward,
        "seconds": seconds,
    }
