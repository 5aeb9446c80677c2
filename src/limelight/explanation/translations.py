"""The subject of an explanation of translations: each output step of a translation is an example, its source the tokens."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import ops

from limelight import evaluate
from limelight.evaluate.estimates import Estimate, bootstrap, widen_constant
from limelight.exceptions import AttentionError
from limelight.explanation.checkpoint import Checkpoint, compute_fingerprint
from limelight.explanation.instrumented import InstrumentedModel
from limelight.explanation.rankings import compute_attributions, remove_tokens
from limelight.explanation.subjects import (
    UNKNOWN,
    DeleteRows,
    ReplaceWord,
    Role,
    Subject,
    choose_perturbation,
    number_rows,
)
from limelight.layers import AttentionRNN
from limelight.models.decoding import RecurrentDecoder, TransformerDecoder
from limelight.models.inputs import as_texts
from limelight.models.translation import END, PADDING, START, apply_transformer_decoder, is_transformer

_STEP = "decoder_step"


class DecoderStep(keras.layers.Layer):
    """The last step of the decoder of a translator, after the steps of a prefix.

    The steps of the prefix run as in the model; the last one runs on its own, so that its attention can be told from theirs.

    Args:
        translator: a model of `build_translator` or `build_transformer_translator`.

    Call arguments:
        memory: the states of the encoder (B, S, E).
        source: ids (B, S).
        previous: ids of the prefix from the start on, padded at the left (B, T), T > 1.
        emitted: the unit that follows (B,).
        states: for a recurrent model, the states before the first step.

    Returns:
        (B, 2): the probability of all other units, and of the one that follows.
    """

    def __init__(self, translator: keras.Model, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.translator_layers = {layer.name: layer for layer in translator.layers}
        self.is_transformer = is_transformer(translator)
        if not self.is_transformer:
            self.prefix = AttentionRNN(translator.get_layer("decoder").cell.cell, return_state=True, name="prefix")
        self.supports_masking = True
        self.built = True

    def call(self, memory: Any, source: Any, previous: Any, emitted: Any, states: Any = None) -> Any:
        layers, mask = self.translator_layers, ops.not_equal(source, PADDING)
        vectors = layers["target_embedding"](previous)
        run = self._run_transformer if self.is_transformer else self._run_recurrent
        output = run(vectors, ops.not_equal(previous, PADDING), memory, mask, states)
        probabilities = layers["probabilities"](layers["output_dropout"](output, training=False))
        chosen = ops.take_along_axis(probabilities, ops.expand_dims(ops.cast(emitted, "int32"), -1), axis=-1)
        return ops.concatenate([1 - chosen, chosen], axis=-1)

    def _run_recurrent(self, vectors: Any, steps: Any, memory: Any, mask: Any, states: Any) -> Any:
        _, *states = self.prefix(
            vectors[:, :-1],
            memory,
            initial_state=states,
            sequences_mask=steps[:, :-1],
            memory_mask=mask,
            training=False,
        )
        cell = self.prefix.cell.cell
        return cell.step(vectors[:, -1], list(states), cell.prepare_memory(memory, mask), training=False)[0]

    def _run_transformer(self, vectors: Any, steps: Any, memory: Any, mask: Any, states: Any) -> Any:
        layers = self.translator_layers

        def attend_to_target(number: int, states: Any) -> Any:
            return layers[f"decoder_self_attention_{number}"](
                states, states, query_mask=steps, value_mask=steps, training=False
            )

        def attend_to_source(number: int, states: Any) -> Any:
            layer, masks = layers[f"cross_attention_{number}"], {"value_mask": mask, "training": False}
            before = layer(states[:, :-1], memory, query_mask=steps[:, :-1], **masks)
            last = layer(states[:, -1:], memory, query_mask=steps[:, -1:], **masks)
            return ops.concatenate([before, last], axis=1)

        return apply_transformer_decoder(layers, vectors, attend_to_target, attend_to_source)[:, -1]

    def compute_mask(self, *args: Any, **kwargs: Any) -> None:
        """Return None: one step has no padding."""

    def compute_output_spec(self, memory: Any, *args: Any, **kwargs: Any) -> Any:
        return keras.KerasTensor((memory.shape[0], 2), dtype="float32")


def build_step_model(translator: keras.Model) -> keras.Model:
    """Return the model of the probability of one unit of a target, from its source and the units before it.

    Args:
        translator: a model of `build_translator` with attention, or of `build_transformer_translator`.

    Returns:
        A model from `source` (B, S), `previous` (B, T) and `emitted` (B,) to (B, 2), as `DecoderStep` returns it.
    """
    source = translator.input["source"]
    previous = keras.Input((None,), dtype="int32", name="previous")
    emitted = keras.Input((), dtype="int32", name="emitted")
    states = None
    if is_transformer(translator):
        memory = TransformerDecoder(translator).encode.output
    else:
        memory, *states = RecurrentDecoder(translator).encode.output
    outputs = DecoderStep(translator, name=_STEP)(memory, source, previous, emitted, states=states)
    return keras.Model({"source": source, "previous": previous, "emitted": emitted}, outputs, name="translator_step")


def find_role(key: str) -> Role | None:
    """Return the role of the attention of a model of `build_step_model`, by its key."""
    name = key.removeprefix(f"{_STEP}/")
    if name == key:
        return Role(key, is_self_attention=True)
    if name.startswith("cross_attention"):
        # The first call is that of the prefix.
        return Role(name.removesuffix("#1")) if name.endswith("#1") else None
    return None if name.startswith(("decoder_self_attention", "prefix")) else Role("decoder")


def make_subject(
    model: Any,
    X: Any,
    *,
    targets: Sequence[np.ndarray] | None = None,
    positions: Sequence[np.ndarray] | None = None,
    perturbation: Any,
    indices: np.ndarray,
    output_steps: int | None,
    seed: int,
) -> Subject:
    """Return the subject of a `Translator`: an example for each output step of each text.

    Args:
        model: the translator.
        X: the source texts.
        targets: for each chosen text the ids of a translation, with its end; those that the search finds by default.
        positions: for each chosen text the steps to take; `output_steps` at random by default.
        perturbation: "replace", "delete" or None.
        indices: the texts to take.
        output_steps: the largest number of steps of each text; None for all.
        seed: seed of the choice of steps.

    Raises:
        AttentionError: the model has no attention.
        ValueError: the perturbation is none of these.
    """
    if model.mechanism is None:
        raise AttentionError(
            "The model must have attention. Received: a Translator with mechanism=None. Set mechanism='bahdanau' and fit again."
        )
    texts = [as_texts(X)[index] for index in indices]
    sources = model._encode_sources(texts)
    words = [model.inputs_.split(text)[: model.max_length] or [""] for text in texts]
    if targets is None:
        targets = [decoded["ids"][0] for decoded in model._search(sources)]
        targets = [ids[: int((ids != PADDING).sum())] for ids in targets]
    if positions is None:
        random = np.random.default_rng(seed)
        positions = [np.sort(random.permutation(len(ids))[:output_steps]) for ids in targets]
    rows = [(row, int(step)) for row, steps in enumerate(positions) for step in steps]
    # At least two, so that there is a step before the last one.
    length = 1 << max(max(step for _, step in rows), 1).bit_length()
    previous = np.zeros((len(rows), length), np.int32)
    for number, (row, step) in enumerate(rows):
        previous[number, length - step - 1 :] = [START, *targets[row][:step]]
    pieces = [["</s>" if each == END else _write(model, each) for each in ids] for ids in targets]
    return Subject(
        build_step_model(model.model_),
        number_rows([sources[row] for row, _ in rows]),
        choose_perturbation(perturbation, ReplaceWord(), DeleteRows(UNKNOWN), only_names=True),
        tokens=[words[row] for row, _ in rows],
        classes=["other units", "the unit that follows"],
        name=type(model).__name__,
        labels=np.ones(len(rows), int),
        groups=np.array([row for row, _ in rows]),
        origins=[int(indices[row]) for row, _ in rows],
        outputs=[pieces[row][step] for row, step in rows],
        steps=np.array([step for _, step in rows]),
        input_name="source",
        context={"previous": previous, "emitted": np.array([targets[row][step] for row, step in rows], np.int32)},
        find_role=find_role,
        # The prefix attends in a loop, where nothing can be changed.
        layers=None if is_transformer(model.model_) else f"{_STEP}/[!p]*",
        explained="the unit that the model wrote, after those before it",
        left_out={
            "changed": "the classes of a step are the unit that follows and all others: how far equal weights move its "
            "probability is reported",
            "agreement by class": "an output step has no class: its label is the unit that follows",
        },
    )


def check_links(model: Any, references: Any) -> None:
    """Raise unless a translator and its references can have links by hand.

    Raises:
        ValueError: the units of a side are not words, or there are no references.
    """
    if {model.source_unit, model.target_unit} != {"word"}:
        raise ValueError(
            "Links are of words: the units of both sides must be words. Received: "
            f"source_unit={model.source_unit!r}, target_unit={model.target_unit!r}. Leave `marks` out."
        )
    if references is None:
        raise ValueError("Links need the references that they lead to. Received: marks without y. Pass `y`.")


def compare_with_links(
    model: Any,
    X: Any,
    references: Any,
    links: Sequence[Any],
    names: Sequence[str],
    *,
    layer: str | None,
    perturbation: Any,
    indices: np.ndarray,
    output_steps: int | None,
    ig_steps: int,
    settings: Mapping[str, Any],
    checkpoint: Path | None = None,
) -> dict[str, dict[str, Estimate]]:
    """Compare the rankings of the steps of references with links by hand, by the measures of `evaluate.plausibility`.

    Each step is linked to the source unit of its highest score for the alignment error rate. Arguments are those of `explain`;
    `checkpoint` is a folder for the parts of this comparison alone.
    """
    texts = [each if isinstance(each, str) else each[0] for each in references]
    targets = encode_references(model, texts)
    gold = [np.asarray(each, int).reshape(-1, 2) for each in links]
    random = np.random.default_rng(settings["seed"])
    positions = [
        np.sort(random.permutation(np.unique(each[each[:, 1] < (ids != END).sum(), 1]))[:output_steps])
        for each, ids in zip(gold, targets, strict=True)
    ]
    if not any(map(len, positions)):
        raise ValueError("`marks` must link a unit of at least one reference. Received: none.")
    subject = make_subject(
        model, X, targets=targets, positions=positions, perturbation=perturbation, indices=indices,
        output_steps=output_steps, seed=settings["seed"],
    )  # fmt: skip
    instrumented = InstrumentedModel(subject, layer)
    if checkpoint is not None:
        described = {"layer": instrumented.key, "rankings": list(names), "ig_steps": ig_steps}
        checkpoint = checkpoint / compute_fingerprint(model, subject, described)[:32]
    with Checkpoint(checkpoint, subject) as stored:
        subject.on_predict = lambda count: stored.write_if_due()
        attributions = compute_attributions(instrumented, names, ig_steps, checkpoint=stored)
        rankings = {**attributions.rankings, **remove_tokens(instrumented, names)}
    groups = np.repeat(np.arange(len(positions)), list(map(len, positions)))
    marks = []
    for row, step, sequence in zip(groups, np.concatenate(positions), subject.sequences, strict=True):
        sources = gold[row][gold[row][:, 1] == step, 0]
        marks.append(np.isin(np.arange(len(sequence)), sources))
    results = evaluate.plausibility(rankings, marks, groups=groups, **settings)
    # A random link is right as often as a random unit of the source is marked.
    hit_rates = {"random": [mark.mean() for mark in marks]}
    for name, scores in rankings.items():
        hit_rates[name] = [mark[int(score.argmax())] for score, mark in zip(scores, marks, strict=True)]
    for name, rate in hit_rates.items():
        hits = np.array(rate, float)
        # One link is made of each step, and the gold ones are those of the mark.
        sizes = np.array([1.0 + mark.sum() for mark in marks])
        sums = [np.bincount(groups, each)[np.unique(groups)] for each in (hits, sizes)]
        rates: Any = bootstrap(
            lambda weights, sums=sums: {"rate": 1 - 2 * (weights @ sums[0]) / (weights @ sums[1])},
            len(sums[0]),
            **settings,
        )
        results[name]["alignment_error_rate"] = widen_constant(rates["rate"], (0.0, 1.0), len(sums[0]))
    return results


def encode_references(model: Any, references: Sequence[str]) -> list[np.ndarray]:
    """Return the ids of translations with their ends, cut to the length that the model writes."""
    _, ids, ended = model._encode(model.inputs_, model.target_, [""] * len(references), list(references))
    return [np.append(each, END) if is_ended else each for each, is_ended in zip(ids, ended, strict=True)]


def _write(model: Any, unit: int) -> str:
    return model.target_.pieces_of([unit])[0] if unit > END else "<unknown>"
