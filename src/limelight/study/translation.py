"""The experiment on pairs of texts to translate."""

import time
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from limelight import plot
from limelight._formatting import format_value
from limelight.data import Pairs, Split
from limelight.data.cleaning import add_repair
from limelight.evaluate.estimates import Statistics, bootstrap, widen_constant
from limelight.evaluate.metrics import value_range
from limelight.evaluate.translations import (
    TRANSLATION_METRICS,
    alignment_error_rate,
    sentence_statistics,
    signatures,
    translation_metric,
)
from limelight.explanation import Explanation, explain
from limelight.models import Translator
from limelight.models.inputs import CutWarning
from limelight.models.objectives import Classification, Objective
from limelight.models.training import Trainer
from limelight.models.translator import Hypothesis, TranslationPairs
from limelight.models.units import Units
from limelight.study.baselines import Dictionary
from limelight.study.evaluation import (
    CORRECT,
    UNCERTAIN,
    WRONG,
    Evaluation,
    Outcome,
    Samples,
    compare_models,
    estimate_proportion,
    mean_over_seeds,
    note_groups,
    summarize_seeds,
)
from limelight.study.folder import Run
from limelight.study.pipelines import PARTS, training_params
from limelight.study.settings import Settings

ATTENTION, NONE, DICTIONARY, COPY = "attention", "none", "dictionary", "copy"
# Translating takes long: what need not be exact is measured on so many pairs.
_NUM_TRANSLATED = 200
# Steps of each translation on which it is tested whether the attention explains them.
_OUTPUT_STEPS = 2
# If no model translates so many validation sources exactly, exact matches say nothing.
_MIN_EXACT = 0.05
# A side with fewer texts of several words is one of characters.
_MIN_SPACED = 0.1


class Translation:
    """An experiment on pairs of texts: the same encoder-decoder with and without attention, a dictionary, and copies.

    The vocabularies are those of the train part alone.
    """

    architectures: tuple[str, ...] = (ATTENTION, NONE)
    baseline: str | None = DICTIONARY
    # The run of the copies also holds the loss of the frequencies of the units.
    trivial, trivial_title = COPY, "frequencies of the units"

    def __init__(self, pairs: Pairs, split: Split, settings: Settings) -> None:
        self.pairs, self.split, self.settings = pairs, split, settings
        self.texts = {part: pairs.take(getattr(split, part)) for part in PARTS}
        self.references = {part: [pairs.targets[index] for index in getattr(split, part)] for part in PARTS}
        sources, targets = self.texts["train"]
        self.source_unit, self.target_unit = self._choose_units(sources, targets)
        self.metric_unit = "character" if self.target_unit == "character" else "word"
        self.models = {name: self._make_translator(name) for name in self.architectures}
        self.inputs = Units.fit(self.source_unit, sources, settings.vocabulary)
        self.target = Units.fit(self.target_unit, targets, settings.vocabulary)
        model = self.models[ATTENTION]
        self.subsets = {
            part: TranslationPairs(*model._encode(self.inputs, self.target, *self.texts[part]))
            for part in ("train", "validation")
        }
        self.objective: Objective = Classification()
        cut = sum(len(self.inputs.split(text)) > settings.length for text in sources) + sum(
            len(self.target.split(text)) > settings.length - 1 for text in targets
        )
        cut_tests = sum(len(self.inputs.split(text)) > settings.length for text in self.texts["test"][0])
        self.repairs = list(pairs.repairs)
        add_repair(self.repairs, f"training texts cut after {settings.length} units", cut)
        add_repair(self.repairs, f"test sources cut after {settings.length} units", cut_tests)
        self.notes = note_groups(pairs.groups, split.test)
        mechanism = settings.mechanism.capitalize()
        self.titles = {
            ATTENTION: f"LSTM + {mechanism} attention",
            NONE: "LSTM without attention",
            DICTIONARY: "Dictionary (IBM 1)",
            COPY: "Copy of the source",
        }
        self.names = {ATTENTION: "attention", NONE: "no attention", DICTIONARY: "the dictionary"}

    @property
    def summary(self) -> str:
        """The sizes of the parts and the units in words."""
        train, validation, test = (f"{len(self.texts[part][0]):,}" for part in PARTS)
        return (
            f"{train} training, {validation} validation and {test} test pairs; from {self.source_unit}s to {self.target_unit}s, "
            f"{self.inputs.size:,} and {self.target.size:,} different ones"
        )

    def build(self, architecture: str) -> keras.Model:
        """Return a new network, not compiled."""
        return self.models[architecture]._build(self.inputs, self.target)

    def predict(self, architecture: str, trainer: Trainer, history: dict[str, Any]) -> dict[str, np.ndarray]:
        """Return the translations of the test part, and those of some of the validation part."""
        estimator = self.make_estimator(architecture, trainer.export(), history)
        with warnings.catch_warnings():
            # They are counted in the repairs.
            warnings.simplefilter("ignore", CutWarning)
            return {
                "validation": np.array(estimator.predict(self.texts["validation"][0][:_NUM_TRANSLATED])),
                "test": np.array(estimator.predict(self.texts["test"][0])),
            }

    def fit_baseline(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Learn the dictionary; return its translations, and a summary."""
        start = time.perf_counter()
        units = ["character" if unit == "character" else "word" for unit in (self.source_unit, self.target_unit)]
        dictionary = Dictionary(*units).fit(*self.texts["train"])
        translations = {
            "validation": np.array(
                [dictionary.translate(text) for text in self.texts["validation"][0][:_NUM_TRANSLATED]]
            ),
            "test": np.array([dictionary.translate(text) for text in self.texts["test"][0]]),
        }
        seconds = time.perf_counter() - start
        return translations, {"seconds": seconds, "epochs": None, "parameters": dictionary.size, "history": {}}

    def fixed_runs(self) -> list[Run]:
        """Return the run of the copies."""
        summary = {
            "seconds": 0.0,
            "epochs": None,
            "parameters": 0,
            "history": {},
            "validation": {"loss": self._unit_entropy()},
        }
        copies = {
            "validation": np.array(self.texts["validation"][0][:_NUM_TRANSLATED]),
            "test": np.array(self.texts["test"][0]),
        }
        return [Run(COPY, 1, summary, copies)]

    def make_estimator(self, architecture: str, model: keras.Model, history: dict[str, Any]) -> Translator:
        """Return a translator with a trained model."""
        return self._make_translator(architecture).restore(self.inputs, self.target, model, history)

    def describe_run(self, run: Run) -> str:
        """Return the share of exact translations of the validation part in words."""
        rate = format_value(self._validate(run), "exact_match", unit=False)
        return f"exact translations on the validation part {rate} %"

    def evaluate(self, runs: Mapping[str, Sequence[Run]]) -> Outcome:
        """Evaluate and compare all models on the test part."""
        references = [list(each) for each in self.references["test"]]
        evaluations = {}
        for name, each in runs.items():
            per_seed = [run.predictions["test"].tolist() for run in each]
            statistics = [self._statistics(texts) for texts in per_seed]
            estimates = {
                metric: widen_constant(estimate, value_range(metric), len(references))
                for metric, estimate in bootstrap(mean_over_seeds(statistics), len(references)).items()
                if not isinstance(estimate, list)
            }
            matches = np.stack([sentence_statistics("exact_match", references, texts)[:, 0] for texts in per_seed])
            estimates["exact_match"] = estimate_proportion(matches, estimates["exact_match"])
            evaluations[name] = summarize_seeds(statistics, estimates, len(references), TRANSLATION_METRICS)
        exact = max(self._validate(run) for each in runs.values() for run in each)
        metric = "exact_match" if exact >= _MIN_EXACT else "bleu"
        preface = []
        if metric == "bleu":
            rate = format_value(exact, "exact_match", unit=False)
            preface = [
                f"At best {rate} % of the validation part were translated exactly, so the models are compared by BLEU."
            ]
        translations = {name: [run.predictions["test"].tolist() for run in runs[name]] for name in self.names}
        comparisons = compare_models(
            references, translations, self.names, metrics=(metric, "error_rate"), unit=self.metric_unit
        )
        return Outcome(evaluations, comparisons, metric, preface, examples_title="test pairs")

    def capture(self, estimator: Any, run: Run) -> Samples:
        """Choose test pairs, and show the translations that the search found with their alignments."""
        count = self.settings.examples
        if not count:
            return Samples([], None)
        rows = np.sort(np.random.default_rng(0).permutation(len(self.split.test))[:_NUM_TRANSLATED])
        sources = [self.texts["test"][0][row] for row in rows]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", CutWarning)
            found = estimator.predict_n_best(sources)
        references = [list(self.references["test"][row]) for row in rows]
        best = [hypotheses[0].text for hypotheses in found]
        right = sentence_statistics("exact_match", references, best)[:, 0] > 0
        order = np.argsort([-hypotheses[0].log_probability for hypotheses in found], kind="stable")
        chosen = {
            CORRECT: [int(index) for index in order if right[index]][:count],
            WRONG: [int(index) for index in order if not right[index]][:count],
        }
        confident = {*chosen[CORRECT], *chosen[WRONG]}
        chosen[UNCERTAIN] = [int(index) for index in order[::-1] if index not in confident][:count]
        entries = [
            {
                "id": str(int(self.split.test[rows[index]])),
                "kind": kind,
                "source": sources[index],
                "source_units": self.inputs.split(sources[index])[: self.settings.length],
                "references": references[index],
                "right": bool(right[index]),
                "hypotheses": [self._describe_hypothesis(each) for each in found[index]],
            }
            for kind, group in chosen.items()
            for index in group
        ]
        maps = estimator.attention([entry["source"] for entry in entries]) if entries else None
        sections: dict[str, Any] = {"translations": entries}
        if self.pairs.alignments is not None and self.source_unit == self.target_unit == "word":
            sections["alignment_error_rate"] = self._measure_alignment(estimator)
        return Samples([], maps, sections)

    def explain(self, estimator: Any, sample: int, **settings: Any) -> Explanation:
        """Test on pairs of the test part whether the attention explains the translations, and compare it with links by hand.

        `sample` counts explained steps, of which a text has several, so that the cost is about that of a classifier. At least
        20 texts are taken, as nothing can be claimed from fewer.
        """
        sources = self.texts["test"][0]
        sample = min(sample, max(20, sample // _OUTPUT_STEPS))
        if self.pairs.alignments is None or {self.source_unit, self.target_unit} != {"word"}:
            return explain(estimator, sources, sample=sample, output_steps=_OUTPUT_STEPS, **settings)
        links = [self.pairs.alignments[index] for index in self.split.test]
        return explain(
            estimator,
            sources,
            self.references["test"],
            marks=links,
            sample=sample,
            output_steps=_OUTPUT_STEPS,
            **settings,
        )

    def describe_data(self) -> dict[str, Any]:
        """Return the sizes of the data, ready for JSON."""
        return {
            "kind": "pairs",
            "counts": {part: len(self.texts[part][0]) for part in PARTS},
            "units": {"source": self.source_unit, "target": self.target_unit},
            "vocabulary": {"source": self.inputs.size, "target": self.target.size},
            "signatures": signatures([list(each) for each in self.references["test"]], self.metric_unit),
        }

    def draw(self, folder: Path, evaluations: Mapping[str, Evaluation], samples: Samples) -> None:
        """Draw the alignment of the first pair of each kind."""
        for old in folder.glob("alignment-*.svg"):
            old.unlink()
        drawn = set()
        for entry in samples.sections.get("translations", ()):
            best, kind = entry["hypotheses"][0], entry["kind"].replace(",", "").replace(" ", "-")
            if kind in drawn or not best["weights"]:
                continue
            drawn.add(kind)
            drawing = plot.alignment(
                np.array(best["weights"]), entry["source_units"], best["units"], title=best["text"]
            )
            plot.save(folder / f"alignment-{kind}.svg", drawing)

    def _measure_alignment(self, estimator: Translator) -> dict[str, float] | None:
        """Return the alignment error rate of the attention on test pairs with links by hand, and that of the diagonal.

        Each word of the reference is linked to the source word with the largest weight.
        """
        alignments, longest = self.pairs.alignments or (), self.settings.length - 1
        fitting = [
            index
            for index in self.split.test
            if max(len(text.split()) for text in (self.pairs.sources[index], self.pairs.targets[index][0])) <= longest
        ][:_NUM_TRANSLATED]
        if not fitting:
            return None
        sources, references = self.pairs.take(fitting)
        weights = next(iter(estimator.attention(sources, references).values())).weights()[:, 0]
        links: dict[str, list[np.ndarray]] = {"attention": [], "diagonal": []}
        for row, (source, reference) in enumerate(zip(sources, references, strict=True)):
            num_sources, num_targets = len(source.split()), len(reference.split())
            chosen = {
                "attention": weights[row, :num_targets, :num_sources].argmax(1),
                "diagonal": np.arange(num_targets) * num_sources // num_targets,
            }
            for name, positions in chosen.items():
                links[name].append(np.stack([positions, np.arange(num_targets)], axis=1))
        gold = [alignments[index] for index in fitting]
        rates = {name: alignment_error_rate(each, gold) for name, each in links.items()}
        return {**rates, "pairs": len(fitting)}

    def _choose_units(self, sources: Sequence[str], targets: Sequence[str]) -> tuple[str, str]:
        """Return the units of both sides: those of the settings; else words where texts have several, and characters."""
        given = self.settings.unit
        if given:
            return given[0], given[-1]
        source, target = (
            "word" if np.mean([len(text.split()) > 1 for text in texts]) >= _MIN_SPACED else "character"
            for texts in (sources, targets)
        )
        return source, target

    def _make_translator(self, architecture: str) -> Translator:
        settings = self.settings
        return Translator(
            mechanism=settings.mechanism if architecture == ATTENTION else None,
            units=settings.units,
            embedding_dim=settings.width,
            dropout=settings.dropout,
            source_unit=self.source_unit,
            target_unit=self.target_unit,
            vocabulary=settings.vocabulary,
            max_length=settings.length,
            beam=settings.beam,
            **training_params(settings),
        )

    def _unit_entropy(self) -> float:
        """Return the loss on the validation part of a model that knows how frequent each target unit is."""
        counts = np.ones(self.target.size)
        for ids in self._target_ids("train"):
            counts[ids] += 1
        losses = -np.log(counts / counts.sum())
        return float(losses[np.concatenate(self._target_ids("validation"))].mean())

    def _target_ids(self, part: str) -> list[np.ndarray]:
        examples = self.subsets[part]
        _, targets, weights = examples.batch(np.arange(len(examples)), int(examples.lengths.max()))
        return [row[real > 0] for row, real in zip(targets, weights, strict=True)]

    def _validate(self, run: Run) -> float:
        """Return the share of exact translations in the validation part."""
        translations = run.predictions["validation"].tolist()
        references = [list(each) for each in self.references["validation"][: len(translations)]]
        return float(sentence_statistics("exact_match", references, translations).mean())

    def _statistics(self, translations: list[str]) -> Statistics:
        """Return the metrics of translations of the test part as a function of weights (R, n)."""
        references = [list(each) for each in self.references["test"]]
        functions = {
            metric: translation_metric(metric, self.metric_unit)(
                sentence_statistics(metric, references, translations, self.metric_unit)
            )
            for metric in TRANSLATION_METRICS
        }
        return lambda weights: {metric: function(weights) for metric, function in functions.items()}

    def _describe_hypothesis(self, hypothesis: Hypothesis) -> dict[str, Any]:
        units = self.target.split(hypothesis.text)
        weights = [] if hypothesis.weights is None else np.round(hypothesis.weights, 4).astype(float).tolist()
        names = [*units, "</s>"][: len(weights)] if weights else units
        # A unit may be written otherwise than it was chosen.
        names += [""] * (len(weights) - len(names))
        return {
            "text": hypothesis.text,
            "units": names,
            "probability": float(np.exp(hypothesis.log_probability)),
            "weights": weights,
        }
