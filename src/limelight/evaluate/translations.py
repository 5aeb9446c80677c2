"""Metrics of translations: exact match, BLEU and chrF by sacrebleu, and the rate of wrong units by jiwer."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from limelight._optional import import_optional
from limelight.evaluate.estimates import Estimate, bootstrap, check_confidence, widen_constant, wilson
from limelight.evaluate.metrics import WeightedMetric, value_range

TRANSLATION_METRICS = ("exact_match", "error_rate", "bleu", "chrf")
UNITS = ("word", "character")


@dataclass(frozen=True)
class TranslationResult:
    """The result of `translation`.

    Args:
        n: Number of sources.
        metrics: `exact_match`, `error_rate`, `bleu` and `chrf`, each an `Estimate`; `result["bleu"]` is short for
            `result.metrics["bleu"]`.
        signatures: How sacrebleu computed `bleu` and `chrf`, to be quoted with them.
    """

    n: int
    metrics: Mapping[str, Estimate]
    signatures: Mapping[str, str]

    def __getitem__(self, metric: str) -> Estimate:
        return self.metrics[metric]

    def to_dict(self) -> dict[str, Any]:
        """Return values that JSON can hold."""
        metrics = {name: estimate.to_dict() for name, estimate in self.metrics.items()}
        return {"n": self.n, "metrics": metrics, "signatures": dict(self.signatures)}


def translation(
    references: Sequence[str | Sequence[str]],
    translations: Sequence[str],
    *,
    unit: str = "word",
    confidence: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> TranslationResult:
    """Compute exact match, error rate, BLEU and chrF of translations, each a fraction with an interval over sentences.

    Exact match has Wilson's interval, the others a BCa bootstrap interval.

    - Exact match is the share of translations that equal a reference, but for white space.
    - The error rate is the number of units that must be inserted, deleted or replaced, over the number of units of the reference:
      the word error rate, the phone error rate where words are phones, or the character error rate. Of several references the one
      with the lowest rate counts.
    - BLEU and chrF are sacrebleu's, divided by 100. For characters, BLEU is that of characters.

    Args:
        references: For each source its reference, or a list of references.
        translations: For each source one translation.
        unit: What an error is counted in: "word" (separated by white space) or "character".
        confidence: Level of the intervals.
        resamples: Number of bootstrap resamples.
        seed: Seed of the bootstrap.

    Raises:
        ValueError: The numbers of references and translations differ, a source has no reference, or `unit` is unknown.
        TypeError: A reference or a translation is no string.
        ImportError: sacrebleu or jiwer is not installed.

    Example:
        >>> result = translation(["T AH M EY T OW", "K AE T"], ["T AH M EY T OW", "K AE D"])
        >>> result["exact_match"].value, round(result["error_rate"].value, 3)
        (0.5, 0.111)

    References:
        Post 2018, arXiv:1804.08771 (sacrebleu); Papineni et al. 2002, ACL (BLEU); Popović 2015, WMT (chrF).
    """
    check_confidence(confidence, resamples)
    by_source = check_references(references)
    n = len(by_source)
    statistics = {name: sentence_statistics(name, by_source, translations, unit) for name in TRANSLATION_METRICS}

    def compute(weights: np.ndarray) -> dict[str, np.ndarray]:
        return {name: translation_metric(name, unit)(each)(weights) for name, each in statistics.items()}

    metrics: dict[str, Any] = dict(bootstrap(compute, n, confidence=confidence, resamples=resamples, seed=seed))
    metrics = {name: widen_constant(estimate, value_range(name), n) for name, estimate in metrics.items()}
    metrics["exact_match"] = wilson(int(statistics["exact_match"].sum()), n, confidence)
    return TranslationResult(n, metrics, signatures(by_source, unit))


def alignment_error_rate(links: Sequence[Any], gold: Sequence[Any]) -> float:
    r"""Return the alignment error rate of links between words: $1 - 2 |A \cap S| / (|A| + |S|)$ over all pairs of texts.

    Args:
        links: For each pair of texts its links A, integers (n, 2): the positions of the source's and of the target's word.
        gold: For each pair of texts the true links S, (m, 2).

    Raises:
        ValueError: The numbers of pairs differ, or there is no link at all.

    Example:
        >>> round(alignment_error_rate([[(0, 0), (1, 1)]], [[(0, 0), (1, 2), (2, 1)]]), 3)
        0.6

    References:
        Och and Ney 2003, Computational Linguistics 29.
    """
    sets = [({tuple(link) for link in np.asarray(each).tolist()} for each in side) for side in (links, gold)]
    counts = [(len(one & other), len(one) + len(other)) for one, other in zip(*sets, strict=True)]
    common, total = map(sum, zip(*counts, strict=True)) if counts else (0, 0)
    if not total:
        raise ValueError("There must be at least one link. Received: none.")
    return 1 - 2 * common / total


def signatures(references: Sequence[Sequence[str]], unit: str) -> dict[str, str]:
    """Return sacrebleu's signatures of BLEU and chrF."""
    described = {}
    for name in ("bleu", "chrf"):
        metric = _sacrebleu(name, unit)
        # The number of references is known only afterwards.
        metric.corpus_score([each[0] for each in references], _to_streams(references))
        described[name] = str(metric.get_signature())
    return described


def check_references(references: Sequence[str | Sequence[str]]) -> list[list[str]]:
    """Return a list of references for each source."""
    by_source = [[each] if isinstance(each, str) else list(each) for each in references]
    for index, each in enumerate(by_source):
        if not each:
            raise ValueError(f"Each source must have a reference. Received: none at position {index}.")
        _check_strings("references", each)
    if not by_source:
        raise ValueError("`references` must hold at least one reference. Received: none.")
    return by_source


def sentence_statistics(
    metric: str, references: Sequence[Sequence[str]], translations: Sequence[str], unit: str = "word"
) -> np.ndarray:
    """Return the statistics of each sentence (n, k), whose weighted sums give the metric.

    Args:
        metric: One of `TRANSLATION_METRICS`.
        references: For each source its references.
        translations: For each source one translation.
        unit: "word" or "character".
    """
    if unit not in UNITS:
        raise ValueError(f'`unit` must be "word" or "character". Received: unit={unit!r}.')
    texts = [str(text) if isinstance(text, np.str_) else text for text in translations]
    _check_strings("translations", texts)
    if len(texts) != len(references):
        raise ValueError(
            f"There must be one translation for each source. Received: {len(references)} sources and {len(texts)} translations."
        )
    if metric == "exact_match":
        matches = [
            any(text.split() == reference.split() for reference in each)
            for text, each in zip(texts, references, strict=True)
        ]
        return np.array(matches, np.float64)[:, None]
    if metric == "error_rate":
        return _count_errors(references, texts, unit)
    # sacrebleu's own significance tests sum these statistics of sentences (sacrebleu/significance.py).
    scorer = _sacrebleu(metric, unit)
    return np.array(scorer._extract_corpus_statistics(texts, _to_streams(references)), np.float64)


def translation_metric(metric: str, unit: str = "word") -> Callable[[np.ndarray], WeightedMetric]:
    """Return a function from the statistics of sentences (n, k) to the metric as a function of weights (R, n)."""
    if metric == "exact_match":
        return lambda statistics: lambda weights: weights @ statistics[:, 0] / weights.sum(1)
    if metric == "error_rate":
        return lambda statistics: lambda weights: weights @ statistics[:, 0] / np.maximum(weights @ statistics[:, 1], 1)
    scorer = _sacrebleu(metric, unit)
    return lambda statistics: (
        lambda weights: np.array([scorer._compute_score_from_stats(row).score / 100 for row in weights @ statistics])
    )


def _sacrebleu(metric: str, unit: str) -> Any:
    metrics = import_optional("sacrebleu.metrics")
    if metric == "chrf":
        return metrics.CHRF()
    # Short hypotheses are tokenized on purpose, so the warning of a tokenized system is left out.
    return metrics.BLEU(tokenize="char" if unit == "character" else "13a", force=True)


def _to_streams(references: Sequence[Sequence[str]]) -> list[list[str | None]]:
    """Return the first reference of each source, then the second, ...; None where a source has fewer."""
    count = max(map(len, references))
    return [[each[rank] if rank < len(each) else None for each in references] for rank in range(count)]


def _count_errors(references: Sequence[Sequence[str]], texts: Sequence[str], unit: str) -> np.ndarray:
    """Return the errors of each translation and the number of units of its nearest reference (n, 2)."""
    jiwer = import_optional("jiwer")
    process = jiwer.process_words if unit == "word" else jiwer.process_characters
    pairs = [
        (index, reference, text)
        for index, (each, text) in enumerate(zip(references, texts, strict=True))
        for reference in each
    ]
    output = process([reference for _, reference, _ in pairs], [text for _, _, text in pairs])
    counts = np.full((len(texts), 2), np.nan)
    for (index, _, _), units, chunks in zip(pairs, output.references, output.alignments, strict=True):
        errors = sum(
            max(chunk.ref_end_idx - chunk.ref_start_idx, chunk.hyp_end_idx - chunk.hyp_start_idx)
            for chunk in chunks
            if chunk.type != "equal"
        )
        rate, length = errors / max(len(units), 1), len(units)
        if np.isnan(counts[index, 0]) or rate < counts[index, 0] / max(counts[index, 1], 1):
            counts[index] = errors, length
    return counts


def _check_strings(name: str, values: Sequence[Any]) -> None:
    other = next((value for value in values if not isinstance(value, str)), None)
    if other is not None:
        raise TypeError(f"`{name}` must hold strings. Received: {type(other).__name__}.")
