"""Metrics of translations against sacrebleu and jiwer, called on whole texts, and their comparisons."""

import jiwer
import numpy as np
import pytest
import sacrebleu

from limelight import evaluate

pytestmark = pytest.mark.backend_free

WORDS = ["the", "cat", "sat", "on", "a", "mat", "and", "one", "dog", "ran"]


def draw(random, count, dropped):
    references = [" ".join(random.choice(WORDS, random.integers(3, 9))) for _ in range(count)]
    translations = [" ".join(w for w in each.split() if random.random() > dropped) or "x" for each in references]
    return references, translations


def test_values_are_those_of_sacrebleu_and_jiwer(random):
    references, translations = draw(random, 61, 0.2)
    result = evaluate.translation(references, translations)
    assert result.n == 61
    assert result["bleu"].value == pytest.approx(sacrebleu.corpus_bleu(translations, [references]).score / 100)
    assert result["chrf"].value == pytest.approx(sacrebleu.corpus_chrf(translations, [references]).score / 100)
    assert result["error_rate"].value == pytest.approx(jiwer.wer(references, translations))
    right = sum(first == second for first, second in zip(references, translations, strict=True))
    assert result["exact_match"].value == right / 61
    for estimate in result.metrics.values():
        assert estimate.low < estimate.value < estimate.high
    assert result.signatures["bleu"].startswith("nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:")
    assert set(result.to_dict()) == {"n", "metrics", "signatures"}


def test_several_references(random):
    references, translations = draw(random, 23, 0.1)
    others, _ = draw(random, 23, 0.0)
    both = [
        [other, each] if index % 2 else [each]
        for index, (each, other) in enumerate(zip(references, others, strict=True))
    ]
    result = evaluate.translation(both, translations)
    streams = [[each[0] for each in both], [each[1] if len(each) > 1 else None for each in both]]
    assert result["bleu"].value == pytest.approx(sacrebleu.corpus_bleu(translations, streams).score / 100)
    assert result.signatures["bleu"].startswith("nrefs:var|")
    errors, lengths = 0, 0
    for each, text in zip(both, translations, strict=True):
        outputs = [jiwer.process_words(reference, text) for reference in each]
        best = min(outputs, key=lambda output: output.wer)
        errors += best.substitutions + best.insertions + best.deletions
        lengths += len(best.references[0])
    assert result["error_rate"].value == pytest.approx(errors / lengths)


def test_characters():
    result = evaluate.translation(["abcd", "ef"], ["abd", "ef"], unit="character")
    assert result["error_rate"].value == pytest.approx(1 / 6)
    assert "tok:char" in result.signatures["bleu"]


def test_all_right():
    result = evaluate.translation(["a b", "c", "d e f"], ["a b", "c", "d e f"])
    assert (result["exact_match"].value, result["error_rate"].value, result["chrf"].value) == (1.0, 0.0, 1.0)
    assert result["exact_match"].low < 1
    # Three right sentences do not show that the rate is zero.
    assert (result["error_rate"].low, result["error_rate"].high) == (None, None)


@pytest.mark.parametrize("metric", ["exact_match", "error_rate", "bleu", "chrf"])
def test_comparison_over_seeds(random, metric):
    references, good = draw(random, 80, 0.2)
    poor = [" ".join(w for w in each.split() if random.random() > 0.5) or "x" for each in references]
    first, second = (
        evaluate.translation(references, good)[metric].value,
        evaluate.translation(references, poor)[metric].value,
    )
    result = evaluate.paired_over_seeds(references, [good, good], [poor, poor], metric=metric)
    assert result.difference.value == pytest.approx(first - second)
    assert result.shown
    single = evaluate.paired(references, good, poor, metric=metric, permutations=199)
    assert single.difference.value == pytest.approx(first - second)
    assert single.p_value == pytest.approx(1 / 200)
    better = "raised" if metric != "error_rate" else "lowered"
    assert f"First {better} {evaluate.METRICS[metric].label} " in evaluate.sentence(result)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((["a"], ["a", "b"]), ValueError, r"one translation for each source\. Received: 1 sources and 2 translations"),
        (([[]], ["a"]), ValueError, r"must have a reference\. Received: none at position 0"),
        ((["a"], [1]), TypeError, r"`translations` must hold strings\. Received: int"),
        (([], []), ValueError, r"at least one reference"),
    ],
)
def test_wrong_arguments(arguments, error, message):
    with pytest.raises(error, match=message):
        evaluate.translation(*arguments)


def test_an_unknown_unit():
    with pytest.raises(ValueError, match=r'`unit` must be "word" or "character"\. Received: unit=\'phone\''):
        evaluate.translation(["a"], ["a"], unit="phone")


def test_exact_match_over_seeds_is_a_mean_over_sentences():
    references = ["a", "b", "c", "d"]
    first, second = [["a", "b", "x", "d"], ["a", "b", "c", "d"]], [["a", "x", "x", "d"], ["x", "b", "x", "d"]]
    result = evaluate.paired_over_seeds(references, first, second, metric="exact_match")
    assert result.first_values == (0.75, 1.0)
    assert result.second_values == (0.5, 0.5)
    np.testing.assert_allclose(result.difference.value, 0.375)


def test_the_alignment_error_rate_by_hand():
    links = [np.array([[0, 0], [1, 1]]), np.array([[2, 0]])]
    gold = [np.array([[0, 0], [1, 2], [2, 1]]), np.array([[2, 0], [0, 1]])]
    assert evaluate.alignment_error_rate(links, gold) == pytest.approx(1 - 2 * 2 / (3 + 5))
    assert evaluate.alignment_error_rate(gold, gold) == 0
    with pytest.raises(ValueError, match=r"at least one link\. Received: none"):
        evaluate.alignment_error_rate([], [])
