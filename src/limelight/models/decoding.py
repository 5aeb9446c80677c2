"""Decoding of translations, as one compiled program for a batch: the search for the most probable ones, and samples."""

import math
from typing import Any, Protocol

import keras
import numpy as np
from keras import ops

from limelight.core.random import hash_bits
from limelight.core.validation import check_positive_int
from limelight.layers import AttentionRNN, KVCache
from limelight.models.translation import (
    END,
    PADDING,
    START,
    apply_transformer_decoder,
    count_decoder_layers,
    is_transformer,
)

_IMPOSSIBLE = -1e30


class Decoder(Protocol):
    """One step of the decoder of a translator, for N rows."""

    has_attention: bool

    def start(self, source: Any, count: int, max_length: int) -> tuple[Any, list[Any]]:
        """Return the memory and the states (N, ...) before the first step, `count` rows for each source."""
        ...

    def step(self, previous: Any, states: list[Any], memory: Any) -> tuple[Any, list[Any], Any]:
        """Return the outputs (N, U) of a step, the new states, and the weights (N, S) or None."""
        ...


class RecurrentDecoder:
    """The LSTM of `build_translator`, whose memory is projected once.

    Args:
        model: A model of `build_translator`.
    """

    def __init__(self, model: keras.Model) -> None:
        names = ("initial_hidden", "initial_carry")
        outputs = [model.get_layer("encoder").output[0], *(model.get_layer(name).output for name in names)]
        self.encode = keras.Model(model.input["source"], outputs)
        self.embedding, decoder = model.get_layer("target_embedding"), model.get_layer("decoder")
        self.has_attention = isinstance(decoder, AttentionRNN)
        self.cell = decoder.cell.cell if isinstance(decoder, AttentionRNN) else decoder.cell

    def start(self, source: Any, count: int, max_length: int) -> tuple[Any, list[Any]]:
        """Return the memory and the states before the first step."""
        memory, *states = self.encode(source, training=False)
        states = [ops.repeat(state, count, axis=0) for state in states]
        if not self.has_attention:
            return None, states
        mask = ops.not_equal(source, PADDING)
        prepared = self.cell.prepare_memory(ops.repeat(memory, count, axis=0), ops.repeat(mask, count, axis=0))
        return prepared, self.cell.initial_step_states(prepared, states)

    def step(self, previous: Any, states: list[Any], memory: Any) -> tuple[Any, list[Any], Any]:
        """Return the outputs of a step, the new states, and the weights."""
        vectors = self.embedding(previous)
        if not self.has_attention:
            output, states = self.cell(vectors, states, training=False)
            return output, list(states), None
        output, states = self.cell.step(vectors, states, memory, training=False)
        return output, states, states[-2]


class TransformerDecoder:
    """The decoder of `build_transformer_translator`: its own steps in a `KVCache`, the source projected once.

    Args:
        model: A model of `build_transformer_translator`.
    """

    has_attention = True

    def __init__(self, model: keras.Model) -> None:
        self.encode = keras.Model(model.input["source"], model.get_layer("transformer_norm").output)
        self.layers = {layer.name: layer for layer in model.layers}
        self.numbers = range(1, count_decoder_layers(self.layers) + 1)

    def start(self, source: Any, count: int, max_length: int) -> tuple[Any, list[Any]]:
        """Return the memory and the states before the first step."""
        encoded = ops.repeat(self.encode(source, training=False), count, axis=0)
        mask = ops.repeat(ops.not_equal(source, PADDING), count, axis=0)
        memory, states = [], []
        for number in self.numbers:
            memory.append(self.layers[f"cross_attention_{number}"].remember(encoded, mask))
            cache = self.layers[f"decoder_self_attention_{number}"].empty_cache(ops.shape(encoded)[0], max_length)
            states.extend(cache)
        return memory, states

    def step(self, previous: Any, states: list[Any], memory: Any) -> tuple[Any, list[Any], Any]:
        """Return the outputs of a step, the new states, and the weights."""
        size, new_states, weights = len(KVCache._fields), [], []

        def attend_to_target(number: int, vectors: Any) -> Any:
            cache = KVCache(*states[(number - 1) * size : number * size])
            layer = self.layers[f"decoder_self_attention_{number}"]
            output, cache = layer(vectors, vectors, cache=cache, training=False)
            new_states.extend(cache)
            return output

        def attend_to_source(number: int, vectors: Any) -> Any:
            layer, cache = self.layers[f"cross_attention_{number}"], memory[number - 1]
            output, each = layer(vectors, cache=cache, return_attention_scores=True, training=False)
            weights.append(ops.mean(ops.cast(each[:, :, 0], "float32"), axis=1))  # over heads
            return output

        vectors = self.layers["target_embedding"](ops.expand_dims(previous, 1))
        outputs = apply_transformer_decoder(self.layers, vectors, attend_to_target, attend_to_source)
        return outputs[:, 0], new_states, sum(weights) / len(weights)


class _Decoding(keras.Model):
    """Base class of decodings: extend K beginnings of each source by one unit after another, to the end or `max_length`.

    Of each step the chosen units and the beginnings that they extend are stored; the targets are put together at the end.

    Args:
        model: A model of `build_translator` or `build_transformer_translator`.
        count: K.
        max_length: Largest number of units L of a target, with its end.
    """

    def __init__(self, model: keras.Model, count: int, max_length: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        check_positive_int("max_length", max_length)
        self.count, self.max_length = count, max_length
        self.translator = model
        self.decoder: Decoder = TransformerDecoder(model) if is_transformer(model) else RecurrentDecoder(model)
        self.built = True

    def _first_totals(self) -> Any:
        """Return the log probabilities of the beginnings before the first step (K,)."""
        return np.zeros(self.count, np.float32)

    def _choose(self, step: Any, totals: Any, log_probabilities: Any, noise: Any) -> tuple[Any, Any, Any]:
        """Choose the next beginnings.

        Args:
            step: The number of units so far.
            totals: Log probabilities of the beginnings (B, K).
            log_probabilities: Those of the next units (B, K, V).
            noise: What `_decode` was given.

        Returns:
            The new log probabilities, the beginnings that are extended, and the units that extend them, (B, K) each.
        """
        raise NotImplementedError

    def _decode(self, source: Any, noise: Any = None) -> tuple[Any, Any, Any]:
        """Return the ids (B, K, L), the log probabilities (B, K) and the weights (B, K, L, S), in the order of the last step."""
        count, max_length = self.count, self.max_length
        batch_size, length = ops.shape(source)
        memory, states = self.decoder.start(source, count, max_length)
        shape = (max_length, batch_size, count)
        slots = ops.arange(count, dtype="int32")
        tokens, parents = ops.zeros(shape, dtype="int32"), ops.zeros(shape, dtype="int32") + slots
        stored = [tokens, parents]
        if self.decoder.has_attention:
            stored.append(ops.zeros((max_length, batch_size * count, length), dtype="float32"))
        totals = ops.add(ops.zeros((batch_size, count), dtype="float32"), self._first_totals())
        finished = ops.zeros((batch_size, count), dtype="bool")
        previous = ops.full((batch_size, count), START, dtype="int32")
        offsets = ops.expand_dims(ops.arange(batch_size, dtype="int32") * count, -1)

        def is_unfinished(step: Any, totals: Any, finished: Any, *_: Any) -> Any:
            return ops.logical_and(step < max_length, ops.logical_not(ops.all(finished)))

        def extend(step: Any, totals: Any, finished: Any, previous: Any, *rest: Any) -> tuple[Any, ...]:
            stored, states = rest[: 2 + self.decoder.has_attention], list(rest[2 + self.decoder.has_attention :])
            outputs, states, weights = self.decoder.step(ops.reshape(previous, (-1,)), states, memory)
            log_probabilities = self._log_probabilities(outputs)
            size = log_probabilities.shape[-1]
            log_probabilities = ops.reshape(log_probabilities, (-1, count, size))
            log_probabilities = ops.where(ops.expand_dims(finished, -1), _after_end(size), log_probabilities)
            totals, origins, tokens = self._choose(step, totals, log_probabilities, noise)
            rows = ops.reshape(offsets + origins, (-1,))
            finished = ops.take_along_axis(finished, origins, axis=1)
            values = [tokens, origins]
            if weights is not None:
                # What follows the end has no weights.
                is_padding = ops.reshape(finished, (-1, 1))
                values.append(ops.where(is_padding, 0.0, ops.take(ops.cast(weights, "float32"), rows, axis=0)))
            stored = [_set_step(each, step, value) for each, value in zip(stored, values, strict=True)]
            finished = ops.logical_or(finished, ops.equal(tokens, END))
            states = [ops.take(state, rows, axis=0) for state in states]
            return step + 1, totals, finished, tokens, *stored, *states

        first = ops.zeros((), dtype="int32")
        variables = (first, totals, finished, previous, *stored, *states)
        _, totals, _, _, tokens, parents, *rest = ops.while_loop(is_unfinished, extend, variables)
        rows = self._trace_back(parents) + ops.reshape(offsets, (1, -1, 1))  # (L, B, K)
        rows = rows + ops.reshape(ops.arange(max_length, dtype="int32"), (-1, 1, 1)) * batch_size * count
        ids = ops.transpose(ops.take(ops.reshape(tokens, (-1,)), rows, axis=0), (1, 2, 0))
        if not self.decoder.has_attention:
            return ids, totals, ops.zeros((batch_size, count, max_length, length), dtype="float32")
        weights = ops.take(ops.reshape(rest[0], (-1, length)), ops.transpose(rows, (1, 2, 0)), axis=0)
        return ids, totals, weights

    def _log_probabilities(self, outputs: Any) -> Any:
        """Return the log probabilities of the next units (N, V); padding, start and the unknown unit are never chosen."""
        outputs = self.translator.get_layer("output_dropout")(outputs, training=False)
        log_probabilities = ops.log(ops.maximum(self.translator.get_layer("probabilities")(outputs), 1e-30))
        return ops.where(ops.arange(log_probabilities.shape[-1]) < END, _IMPOSSIBLE, log_probabilities)

    def _trace_back(self, parents: Any) -> Any:
        """Return the beginning that holds each unit of the final targets (L, B, K)."""

        def trace(step: Any, slots: Any, path: Any) -> tuple[Any, Any, Any]:
            path = _set_step(path, step, slots)
            return step - 1, ops.take_along_axis(ops.take(parents, step, axis=0), slots, axis=1), path

        last = ops.zeros_like(parents[0]) + ops.arange(self.count, dtype="int32")
        step = ops.zeros((), dtype="int32") + (self.max_length - 1)
        return ops.while_loop(lambda step, *_: step >= 0, trace, (step, last, parents))[-1]


class BeamSearch(_Decoding):
    r"""Search the most probable targets of sources; the whole search is one compiled program.

    In each step the `beam` most probable beginnings are kept. At the end, or at `max_length`, they are ranked by (Wu et al. 2016)

    $$\frac{\log p(y \mid x)}{((5 + T) / 6)^\alpha} + \beta \sum_j \log \min\Big(\sum_t w_{tj}, 1\Big)$$

    T counts the end. Padding, start and the unknown unit are never chosen. The weights of a Transformer are the mean over the
    heads and layers of its attention to the source.

    Args:
        model: A model of `build_translator` or `build_transformer_translator`.
        beam: Number of beginnings K that are kept; 1 takes the most probable unit at each step.
        max_length: Largest number of units L of a target, with its end.
        length_penalty: $\alpha$; 0 prefers short targets.
        coverage_penalty: $\beta$; it needs attention.

    Call arguments:
        source: Ids (B, S).

    Returns:
        A dict of `ids` (B, K, L), best first, 0 after the end; `scores` (B, K); `log_probabilities` (B, K); and `weights`
        (B, K, L, S) of the attention, 0 without one.

    Raises:
        ValueError: `beam` or `max_length` is not positive, a penalty is negative, or `coverage_penalty` is given for a model
            without attention.

    References:
        Wu et al. 2016, arXiv:1609.08144.
    """

    def __init__(
        self,
        model: keras.Model,
        *,
        beam: int = 1,
        max_length: int = 64,
        length_penalty: float = 0.6,
        coverage_penalty: float = 0.0,
        **kwargs: Any,
    ) -> None:
        check_positive_int("beam", beam)
        for name, penalty in {"length_penalty": length_penalty, "coverage_penalty": coverage_penalty}.items():
            if penalty < 0:
                raise ValueError(f"`{name}` must not be negative. Received: {name}={penalty!r}.")
        super().__init__(model, beam, max_length, **kwargs)
        if coverage_penalty and not self.decoder.has_attention:
            raise ValueError(
                f"`coverage_penalty` needs a model with attention. Received: {coverage_penalty!r}. Set it to 0."
            )
        self.length_penalty, self.coverage_penalty = length_penalty, coverage_penalty

    def call(self, source: Any) -> dict[str, Any]:
        source = ops.cast(source, "int32")
        ids, totals, weights = self._decode(source)
        scores, order = ops.top_k(self._score(ids, totals, weights, ops.not_equal(source, PADDING)), self.count)
        order = ops.cast(order, "int32")
        return {
            "ids": ops.take_along_axis(ids, ops.expand_dims(order, -1), axis=1),
            "scores": scores,
            "log_probabilities": ops.take_along_axis(totals, order, axis=1),
            "weights": ops.take_along_axis(weights, ops.reshape(order, (-1, self.count, 1, 1)), axis=1),
        }

    def _first_totals(self) -> Any:
        # At first all beginnings are equal: one of them is extended.
        return np.where(np.arange(self.count) > 0, _IMPOSSIBLE, 0.0).astype(np.float32)

    def _choose(self, step: Any, totals: Any, log_probabilities: Any, noise: Any) -> tuple[Any, Any, Any]:
        size = log_probabilities.shape[-1]
        candidates = ops.reshape(ops.expand_dims(totals, -1) + log_probabilities, (-1, self.count * size))
        totals, chosen = ops.top_k(candidates, self.count)
        chosen = ops.cast(chosen, "int32")
        return totals, chosen // size, chosen % size

    def _score(self, ids: Any, totals: Any, weights: Any, mask: Any) -> Any:
        lengths = ops.sum(ops.cast(ops.not_equal(ids, PADDING), "float32"), axis=-1)
        scores = totals / ops.power((5 + lengths) / 6, self.length_penalty)
        if not self.coverage_penalty:
            return scores
        covered = ops.log(ops.clip(ops.sum(weights, axis=2), 1e-6, 1.0))  # (B, K, S)
        return scores + self.coverage_penalty * ops.sum(ops.where(ops.expand_dims(mask, 1), covered, 0.0), axis=-1)


class Sampling(_Decoding):
    r"""Draw targets of sources, unit by unit, from $p(y_t \mid y_{<t}, x)^{1/\tau}$, normalized; one compiled program.

    A sample depends on its seed and number alone, not on the other sources, and not on the backend but for rounding.

    Args:
        model: A model of `build_translator` or `build_transformer_translator`.
        samples: Number of targets K that are drawn of each source.
        max_length: Largest number of units L of a target, with its end.
        temperature: $\tau$; below 1 favours probable units.
        top_k: Draw among this many most probable units only.
        top_p: Draw among the most probable units only, as many as have this probability together, in (0, 1].

    Call arguments:
        inputs: A dict of `source`, ids (B, S), and `seeds`, int32 (B,).

    Returns:
        A dict as of `BeamSearch`, in the order of drawing; scores are the log probabilities, which are those of the model itself.

    Raises:
        ValueError: `samples`, `max_length`, `top_k` or `temperature` is not positive, or `top_p` is not in (0, 1].

    References:
        Fan et al. 2018, arXiv:1805.04833 (top-k); Holtzman et al. 2020, arXiv:1904.09751 (top-p).
    """

    def __init__(
        self,
        model: keras.Model,
        *,
        samples: int = 1,
        max_length: int = 64,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        **kwargs: Any,
    ) -> None:
        check_positive_int("samples", samples)
        check_positive_int("top_k", top_k, optional=True)
        if not 0 < temperature < math.inf:
            raise ValueError(f"`temperature` must be positive. Received: temperature={temperature!r}.")
        if top_p is not None and not 0 < top_p <= 1:
            raise ValueError(f"`top_p` must be in (0, 1]. Received: top_p={top_p!r}.")
        super().__init__(model, samples, max_length, **kwargs)
        self.temperature, self.top_k, self.top_p = temperature, top_k, top_p

    def call(self, inputs: dict[str, Any]) -> dict[str, Any]:
        numbers = hash_bits(ops.arange(self.count, dtype="int32") + 1)
        seeds = hash_bits(hash_bits(ops.expand_dims(ops.cast(inputs["seeds"], "int32"), -1)) + numbers)  # (B, K)
        ids, totals, weights = self._decode(ops.cast(inputs["source"], "int32"), seeds)
        return {"ids": ids, "scores": totals, "log_probabilities": totals, "weights": weights}

    def _choose(self, step: Any, totals: Any, log_probabilities: Any, noise: Any) -> tuple[Any, Any, Any]:
        size = log_probabilities.shape[-1]
        logits = log_probabilities / self.temperature
        if self.top_k is not None and self.top_k < size:
            logits = ops.where(logits < ops.top_k(logits, self.top_k)[0][..., -1:], _IMPOSSIBLE, logits)
        if self.top_p is not None:
            ordered = ops.top_k(ops.softmax(logits), size)[0]
            # The last unit that is needed to reach `top_p`, and all that are more probable.
            is_needed = ops.cumsum(ordered, axis=-1) - ordered < self.top_p
            least = ops.min(ops.where(is_needed, ordered, 1.0), axis=-1, keepdims=True)
            logits = ops.where(ops.softmax(logits) < least, _IMPOSSIBLE, logits)
        bits = hash_bits(ops.expand_dims(hash_bits(noise + step), -1) + hash_bits(ops.arange(size, dtype="int32")))
        uniform = ops.clip(ops.cast(bits, "float32") * 2**-32 + 0.5, 1e-7, 1 - 1e-7)
        # The largest sum of a logit and Gumbel noise is a sample.
        tokens = ops.cast(ops.argmax(logits - ops.log(-ops.log(uniform)), axis=-1), "int32")
        chosen = ops.take_along_axis(log_probabilities, ops.expand_dims(tokens, -1), axis=-1)[..., 0]
        origins = ops.zeros_like(tokens) + ops.arange(self.count, dtype="int32")
        return totals + chosen, origins, tokens


def _set_step(stored: Any, step: Any, values: Any) -> Any:
    """Return what is stored (L, ...) with the values (...) of a step."""
    return ops.slice_update(stored, [step, *(0 for _ in stored.shape[1:])], ops.expand_dims(values, 0))


def _after_end(size: int) -> np.ndarray:
    """Return the log probabilities of the units after the end: padding alone."""
    values = np.full(size, _IMPOSSIBLE, np.float32)
    values[PADDING] = 0.0
    return values
