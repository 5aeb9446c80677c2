"""The Keras model of the translator, trained on its own previous tokens, and its search for the best translations."""

from typing import Any

import keras
import numpy as np
from keras import ops

from limelight.core.validation import check_positive_int
from limelight.layers import AttentionCell, AttentionRNN
from limelight.scores import Additive, Bilinear

ATTENTIONS = ("bahdanau", "luong", None)
PADDING, UNKNOWN, START, END = range(4)
_IMPOSSIBLE = -1e30


def build_translator(
    source_size: int,
    target_size: int,
    *,
    attention: str | None = "bahdanau",
    units: int = 128,
    embedding_dim: int = 64,
    dropout: float = 0.2,
) -> keras.Model:
    r"""Build an encoder-decoder: each step of the decoder attends to the states of the encoder.

    $$h = \mathrm{BiLSTM}(E^s_x), \qquad p(y_t \mid y_{<t}, x) = \mathrm{softmax}(W s_t + b), \qquad
    s_t = \mathrm{cell}(E^t_{y_{t-1}}, s_{t-1}; h)$$

    Ids are 0 padding, 1 unknown, 2 start and 3 end.

    Args:
        source_size: Number of ids of the source.
        target_size: Number of ids of the target.
        attention: "bahdanau" (additive, the previous state asks), "luong" (bilinear, the new state asks, with input feeding), or
            None for the same model in which the last state of the encoder is all that the decoder sees.
        units: Units of the decoder, and of the encoder in each direction.
        embedding_dim: Width of the embeddings of both sides.
        dropout: Fraction of the features that is dropped from the embeddings and the decoder's output, in [0, 1).

    Returns:
        A model from a dict of ids `source` (B, S) and `previous` (B, T), the target shifted by the start, to the probabilities of
        the target (B, T, target_size).

    Raises:
        ValueError: A size is not positive, a rate is not in [0, 1), or `attention` is unknown.

    Example:
        >>> import numpy as np
        >>> model = build_translator(20, 10, units=4, embedding_dim=3)
        >>> batch = {"source": np.array([[5, 6, 0]]), "previous": np.array([[2, 4, 5, 6]])}
        >>> model.predict(batch, verbose=0).shape
        (1, 4, 10)

    References:
        Bahdanau et al. 2015, arXiv:1409.0473; Luong et al. 2015, arXiv:1508.04025.
    """
    sizes = {"source_size": source_size, "target_size": target_size, "units": units, "embedding_dim": embedding_dim}
    for name, size in sizes.items():
        check_positive_int(name, size)
    if attention not in ATTENTIONS:
        raise ValueError(f'`attention` must be "bahdanau", "luong" or None. Received: attention={attention!r}.')
    source = keras.Input((None,), dtype="int32", name="source")
    previous = keras.Input((None,), dtype="int32", name="previous")
    source_mask, target_mask = ops.not_equal(source, PADDING), ops.not_equal(previous, PADDING)

    vectors = keras.layers.Embedding(source_size, embedding_dim, name="source_embedding")(source)
    vectors = keras.layers.Dropout(dropout, name="source_dropout")(vectors)
    lstm = keras.layers.LSTM(units, return_sequences=True, return_state=True)
    memory, *last = keras.layers.Bidirectional(lstm, name="encoder")(vectors, mask=source_mask)
    # The state of an LSTM is a pair, of each direction.
    states = [
        keras.layers.Dense(units, "tanh", name=f"initial_{name}")(keras.layers.Concatenate(name=f"last_{name}")(pair))
        for name, pair in (("hidden", last[0::2]), ("carry", last[1::2]))
    ]
    vectors = keras.layers.Embedding(target_size, embedding_dim, name="target_embedding")(previous)
    vectors = keras.layers.Dropout(dropout, name="target_dropout")(vectors)
    if attention is None:
        decoder = keras.layers.LSTM(units, return_sequences=True, name="decoder")
        outputs = decoder(vectors, initial_state=states, mask=target_mask)
    else:
        score, attend = (Additive(units), "before") if attention == "bahdanau" else (Bilinear(), "after")
        cell = AttentionCell(keras.layers.LSTMCell(units), memory_size=2 * units, score=score, attend=attend)
        decoder = AttentionRNN(cell, return_sequences=True, name="decoder")
        outputs = decoder(vectors, memory, initial_state=states, sequences_mask=target_mask, memory_mask=source_mask)
    outputs = keras.layers.Dropout(dropout, name="output_dropout")(outputs)
    probabilities = keras.layers.Dense(target_size, "softmax", dtype="float32", name="probabilities")(outputs)
    return keras.Model({"source": source, "previous": previous}, probabilities, name="translator")


class BeamSearch(keras.Model):
    r"""Search the most probable targets of sources; the whole search is one compiled program.

    In each step the `beam` most probable beginnings are kept. At the end, or at `max_length`, they are ranked by (Wu et al. 2016)

    $$\frac{\log p(y \mid x)}{((5 + T) / 6)^\alpha} + \beta \sum_j \log \min\Big(\sum_t w_{tj}, 1\Big)$$

    T counts the end. Padding, start and the unknown word are never chosen.

    Args:
        model: A model of `build_translator`.
        beam: Number of beginnings K that are kept; 1 takes the most probable token at each step.
        max_length: Largest number of tokens L of a target, with its end.
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
        super().__init__(**kwargs)
        check_positive_int("beam", beam)
        check_positive_int("max_length", max_length)
        for name, penalty in {"length_penalty": length_penalty, "coverage_penalty": coverage_penalty}.items():
            if penalty < 0:
                raise ValueError(f"`{name}` must not be negative. Received: {name}={penalty!r}.")
        if coverage_penalty and not isinstance(model.get_layer("decoder"), AttentionRNN):
            raise ValueError(
                f"`coverage_penalty` needs a model with attention. Received: {coverage_penalty!r}. Set it to 0."
            )
        self.beam, self.max_length = beam, max_length
        self.length_penalty, self.coverage_penalty = length_penalty, coverage_penalty
        self.encode = keras.Model(
            model.input["source"],
            [
                model.get_layer("encoder").output[0],
                model.get_layer("initial_hidden").output,
                model.get_layer("initial_carry").output,
            ],
        )
        self.embedding, self.probabilities = model.get_layer("target_embedding"), model.get_layer("probabilities")
        decoder = model.get_layer("decoder")
        self.has_attention = isinstance(decoder, AttentionRNN)
        self.cell = decoder.cell.cell if isinstance(decoder, AttentionRNN) else decoder.cell
        self.built = True

    def call(self, source: Any) -> dict[str, Any]:
        source = ops.cast(source, "int32")
        batch_size, length = ops.shape(source)
        memory, hidden, carry = self.encode(source)
        mask = ops.not_equal(source, PADDING)

        def repeat(tensor: Any) -> Any:
            return ops.repeat(tensor, self.beam, axis=0)  # (B * K, ...)

        states = [repeat(hidden), repeat(carry)]
        prepared = None
        if self.has_attention:
            prepared = self.cell.prepare_memory(repeat(memory), repeat(mask))
            states = self.cell.initial_step_states(prepared, states)
        ids = ops.zeros((batch_size, self.beam, self.max_length), dtype="int32")
        # At first all beginnings are equal: one of them is extended.
        first = ops.cast(ops.arange(self.beam) > 0, "float32") * _IMPOSSIBLE
        total = ops.zeros((batch_size, self.beam), dtype="float32") + first
        finished = ops.zeros((batch_size, self.beam), dtype="bool")
        previous = ops.full((batch_size, self.beam), START, dtype="int32")
        weights = ops.zeros((batch_size, self.beam, self.max_length, length), dtype="float32")
        offsets = ops.expand_dims(ops.arange(batch_size, dtype="int32") * self.beam, -1)

        def is_unfinished(step: Any, ids: Any, total: Any, finished: Any, *_: Any) -> Any:
            return ops.logical_and(step < self.max_length, ops.logical_not(ops.all(finished)))

        def extend(
            step: Any, ids: Any, total: Any, finished: Any, previous: Any, weights: Any, *states: Any
        ) -> tuple[Any, ...]:
            step_input = ops.reshape(previous, (-1,))
            log_probabilities, new_states, step_weights = self._step(step_input, list(states), prepared, length)
            size = log_probabilities.shape[-1]
            log_probabilities = ops.reshape(log_probabilities, (-1, self.beam, size))
            log_probabilities = ops.where(ops.expand_dims(finished, -1), _after_end(size), log_probabilities)
            candidates = ops.reshape(ops.expand_dims(total, -1) + log_probabilities, (-1, self.beam * size))
            total, chosen = ops.top_k(candidates, self.beam)
            chosen = ops.cast(chosen, "int32")
            origin, token = chosen // size, chosen % size
            flat = ops.reshape(offsets + origin, (-1,))

            def reorder(tensor: Any) -> Any:
                rows = ops.reshape(
                    tensor, (-1, *tensor.shape[2:-1], ops.shape(tensor)[-1]) if tensor.ndim > 2 else (-1,)
                )
                return ops.reshape(ops.take(rows, flat, axis=0), ops.shape(tensor))

            is_step = ops.equal(ops.arange(self.max_length, dtype="int32"), step)
            ids = ops.where(is_step, ops.expand_dims(token, -1), reorder(ids))
            finished = ops.take_along_axis(finished, origin, axis=1)
            # What follows the end has no weights.
            step_weights = ops.reshape(step_weights, (-1, self.beam, length))
            step_weights = ops.take_along_axis(step_weights, ops.expand_dims(origin, -1), axis=1)
            step_weights = ops.where(ops.expand_dims(finished, -1), 0.0, ops.cast(step_weights, "float32"))
            weights = ops.where(ops.expand_dims(is_step, -1), ops.expand_dims(step_weights, 2), reorder(weights))
            finished = ops.logical_or(finished, ops.equal(token, END))
            return (
                step + 1,
                ids,
                total,
                finished,
                token,
                weights,
                *(ops.take(state, flat, axis=0) for state in new_states),
            )

        variables = (ops.zeros((), dtype="int32"), ids, total, finished, previous, weights, *states)
        _, ids, total, _, _, weights, *_ = ops.while_loop(is_unfinished, extend, variables)
        scores, order = ops.top_k(self._score(ids, total, weights, mask), self.beam)
        order = ops.cast(order, "int32")
        return {
            "ids": ops.take_along_axis(ids, ops.expand_dims(order, -1), axis=1),
            "scores": scores,
            "log_probabilities": ops.take_along_axis(total, order, axis=1),
            "weights": ops.take_along_axis(weights, ops.reshape(order, (-1, self.beam, 1, 1)), axis=1),
        }

    def _step(self, previous: Any, states: list[Any], memory: Any, length: Any) -> tuple[Any, list[Any], Any]:
        """Return the log probabilities of the next tokens (B * K, V), the states, and the weights (B * K, S)."""
        vectors = self.embedding(previous)
        if self.has_attention:
            output, states = self.cell.step(vectors, states, memory, training=False)
            weights = states[-2]
        else:
            output, states = self.cell(vectors, states, training=False)
            weights = ops.zeros((ops.shape(previous)[0], length), dtype="float32")
        log_probabilities = ops.log(ops.maximum(self.probabilities(output), 1e-30))
        size = log_probabilities.shape[-1]
        log_probabilities = ops.where(ops.arange(size) < END, _IMPOSSIBLE, log_probabilities)
        return log_probabilities, list(states), weights

    def _score(self, ids: Any, total: Any, weights: Any, mask: Any) -> Any:
        lengths = ops.sum(ops.cast(ops.not_equal(ids, PADDING), "float32"), axis=-1)
        scores = total / ops.power((5 + lengths) / 6, self.length_penalty)
        if not self.coverage_penalty:
            return scores
        covered = ops.log(ops.clip(ops.sum(weights, axis=2), 1e-6, 1.0))  # (B, K, S)
        return scores + self.coverage_penalty * ops.sum(ops.where(ops.expand_dims(mask, 1), covered, 0.0), axis=-1)


def _after_end(size: int) -> np.ndarray:
    """Return the log probabilities of the tokens after the end: padding alone."""
    values = np.full(size, _IMPOSSIBLE, np.float32)
    values[PADDING] = 0.0
    return values
