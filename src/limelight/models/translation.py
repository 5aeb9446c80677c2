"""Keras models of the translator, each Functional and not compiled: recurrent, or a Transformer."""

from collections.abc import Callable, Mapping
from typing import Any

import keras
from keras import ops

from limelight.core.validation import check_positive_int
from limelight.layers import AttentionCell, AttentionRNN, Coverage
from limelight.models.builders import apply_transformer
from limelight.recipes import roformer, vaswani
from limelight.scores import Additive, Bilinear, LocationSensitive

ATTENTIONS = ("bahdanau", "luong", "coverage", None)
PADDING, UNKNOWN, START, END = range(4)


def build_translator(
    source_size: int,
    target_size: int,
    *,
    attention: str | None = "bahdanau",
    units: int = 128,
    embedding_dim: int = 64,
    dropout: float = 0.2,
    coverage_loss: float = 0.0,
) -> keras.Model:
    r"""Build a recurrent encoder-decoder: each step of the decoder attends to the states of the encoder.

    $$h = \mathrm{BiLSTM}(E^s_x), \qquad p(y_t \mid y_{<t}, x) = \mathrm{softmax}(W s_t + b), \qquad
    s_t = \mathrm{cell}(E^t_{y_{t-1}}, s_{t-1}; h)$$

    Ids are 0 padding, 1 unknown, 2 start and 3 end.

    Args:
        source_size: Number of ids of the source.
        target_size: Number of ids of the target.
        attention: "bahdanau" (additive, the previous state asks), "luong" (bilinear, the new state asks, with input feeding),
            "coverage" (Bahdanau's, whose score also sees the sum of the weights so far), or None for the same model in which the
            last state of the encoder is all that the decoder sees.
        units: Units of the decoder, and of the encoder in each direction.
        embedding_dim: Width of the embeddings of both sides.
        dropout: Fraction of the features that is dropped from the embeddings and the decoder's output, in [0, 1).
        coverage_loss: Factor of the loss by which a step must not attend again to what earlier steps attended to (`Coverage`).

    Returns:
        A model from a dict of ids `source` (B, S) and `previous` (B, T), the target shifted by the start, to the probabilities of
        the target (B, T, target_size).

    Raises:
        ValueError: A size is not positive, a rate is not in [0, 1), `attention` is unknown, or `coverage_loss` is negative or
            given without attention.

    Example:
        >>> import numpy as np
        >>> model = build_translator(20, 10, units=4, embedding_dim=3)
        >>> batch = {"source": np.array([[5, 6, 0]]), "previous": np.array([[2, 4, 5, 6]])}
        >>> model.predict(batch, verbose=0).shape
        (1, 4, 10)

    References:
        Bahdanau et al. 2015, arXiv:1409.0473; Luong et al. 2015, arXiv:1508.04025; See et al. 2017, arXiv:1704.04368 (coverage).
    """
    sizes = {"source_size": source_size, "target_size": target_size, "units": units, "embedding_dim": embedding_dim}
    for name, size in sizes.items():
        check_positive_int(name, size)
    if attention not in ATTENTIONS:
        raise ValueError(
            f'`attention` must be "bahdanau", "luong", "coverage" or None. Received: attention={attention!r}.'
        )
    _check_coverage_loss(coverage_loss)
    if coverage_loss and attention is None:
        raise ValueError(
            f"`coverage_loss` needs a model with attention. Received: coverage_loss={coverage_loss!r}, attention=None."
        )
    inputs = _make_inputs()
    source_mask, target_mask = (ops.not_equal(ids, PADDING) for ids in inputs.values())
    vectors = _embed("source", source_size, inputs["source"], embedding_dim, dropout)
    lstm = keras.layers.LSTM(units, return_sequences=True, return_state=True)
    memory, *last = keras.layers.Bidirectional(lstm, name="encoder")(vectors, mask=source_mask)
    # The state of an LSTM is a pair, of each direction.
    states = [
        keras.layers.Dense(units, "tanh", name=f"initial_{name}")(keras.layers.Concatenate(name=f"last_{name}")(pair))
        for name, pair in (("hidden", last[0::2]), ("carry", last[1::2]))
    ]
    vectors = _embed("target", target_size, inputs["previous"], embedding_dim, dropout)
    if attention is None:
        decoder = keras.layers.LSTM(units, return_sequences=True, name="decoder")
        outputs = decoder(vectors, initial_state=states, mask=target_mask)
    else:
        scores = {
            "bahdanau": Additive,
            "luong": lambda _: Bilinear(),
            "coverage": lambda units: LocationSensitive(units, kernel_size=1, cumulative=True),
        }
        cell = AttentionCell(
            keras.layers.LSTMCell(units),
            memory_size=2 * units,
            score=scores[attention](units),
            attend="after" if attention == "luong" else "before",
        )
        regularizer = Coverage(coverage_loss) if coverage_loss else None
        decoder = AttentionRNN(cell, return_sequences=True, attention_regularizer=regularizer, name="decoder")
        outputs = decoder(vectors, memory, initial_state=states, sequences_mask=target_mask, memory_mask=source_mask)
    return keras.Model(inputs, _predict(outputs, target_size, dropout), name="translator")


def build_transformer_translator(
    source_size: int,
    target_size: int,
    *,
    units: int = 128,
    embedding_dim: int = 64,
    num_layers: int = 2,
    num_heads: int = 4,
    dropout: float = 0.2,
    coverage_loss: float = 0.0,
) -> keras.Model:
    r"""Build a Transformer: blocks of the decoder attend to earlier units of the target, then to the source.

    $$h = \mathrm{encode}(E^s_x), \qquad p(y_t \mid y_{<t}, x) = \mathrm{softmax}(W\,\mathrm{decode}(E^t_{y_{<t}}; h)_t + b)$$

    Normalization precedes each block, and positions are rotary, so that there is no largest length. Ids are those of
    `build_translator`.

    Args:
        source_size: Number of ids of the source.
        target_size: Number of ids of the target.
        units: Width of the model, a multiple of twice `num_heads`; four times as wide between the two layers of a block.
        embedding_dim: Width of the embeddings of both sides.
        num_layers: Number of blocks of the encoder, and of the decoder.
        num_heads: Number of heads.
        dropout: Fraction that is dropped of the features and of the weights, in [0, 1).
        coverage_loss: As in `build_translator`, of the attention to the source.

    Returns:
        A model with the inputs and outputs of `build_translator`.

    Raises:
        ValueError: A size is not positive, `units` is no multiple, a rate is not in [0, 1), or `coverage_loss` is negative.

    Example:
        >>> import numpy as np
        >>> model = build_transformer_translator(20, 10, units=8, embedding_dim=3, num_heads=2)
        >>> batch = {"source": np.array([[5, 6, 0]]), "previous": np.array([[2, 4, 5, 6]])}
        >>> model.predict(batch, verbose=0).shape
        (1, 4, 10)

    References:
        Vaswani et al. 2017, arXiv:1706.03762; Su et al. 2021, arXiv:2104.09864 (rotary positions); Xiong et al. 2020,
        arXiv:2002.04745 (normalization before each block).
    """
    sizes = {"source_size": source_size, "target_size": target_size, "units": units, "embedding_dim": embedding_dim}
    for name, size in {**sizes, "num_layers": num_layers, "num_heads": num_heads}.items():
        check_positive_int(name, size)
    _check_coverage_loss(coverage_loss)
    inputs = _make_inputs()
    source_mask, target_mask = (ops.not_equal(ids, PADDING) for ids in inputs.values())
    vectors = _embed("source", source_size, inputs["source"], embedding_dim, dropout)
    memory = apply_transformer(vectors, source_mask, units, dropout, num_layers=num_layers, num_heads=num_heads)
    vectors = _embed("target", target_size, inputs["previous"], embedding_dim, dropout)
    regularizer = Coverage(coverage_loss) if coverage_loss else None
    layers: dict[str, keras.Layer] = {}

    def add(layer: keras.Layer) -> None:
        layers[layer.name] = layer

    add(keras.layers.Dense(units, name="decoder_input"))
    for number in range(1, num_layers + 1):
        head_dim = units // num_heads
        name = f"decoder_self_attention_{number}"
        add(roformer(num_heads, head_dim, causal=True, dropout=dropout, name=name))
        name = f"cross_attention_{number}"
        add(vaswani(num_heads, head_dim, dropout=dropout, attention_regularizer=regularizer, name=name))
        add(keras.layers.Dense(4 * units, activation="gelu", name=f"decoder_feedforward_hidden_{number}"))
        add(keras.layers.Dense(units, name=f"decoder_feedforward_{number}"))
        for block in ("self_attention", "cross_attention", "feedforward"):
            add(keras.layers.LayerNormalization(name=f"{block}_norm_of_decoder_{number}"))
            add(keras.layers.Dropout(dropout, name=f"{block}_dropout_of_decoder_{number}"))
    add(keras.layers.LayerNormalization(name="decoder_norm"))
    outputs = apply_transformer_decoder(
        layers,
        vectors,
        lambda number, states: layers[f"decoder_self_attention_{number}"](
            states, states, query_mask=target_mask, value_mask=target_mask
        ),
        lambda number, states: layers[f"cross_attention_{number}"](
            states, memory, query_mask=target_mask, value_mask=source_mask
        ),
    )
    return keras.Model(inputs, _predict(outputs, target_size, dropout), name="transformer_translator")


def apply_transformer_decoder(
    layers: Mapping[str, Any],
    vectors: Any,
    attend_to_target: Callable[[int, Any], Any],
    attend_to_source: Callable[[int, Any], Any],
) -> Any:
    """Return the outputs (B, T, units) of the decoder of `build_transformer_translator`.

    Args:
        layers: Its layers by name.
        vectors: The embeddings of the previous units (B, T, D).
        attend_to_target: Returns the output of the self-attention of a block, by number from 1, for its normalized states.
        attend_to_source: Likewise, of the attention to the source.
    """
    states = layers["decoder_input"](vectors)
    for number in range(1, count_decoder_layers(layers) + 1):

        def feed_forward(number: int, states: Any) -> Any:
            return layers[f"decoder_feedforward_{number}"](layers[f"decoder_feedforward_hidden_{number}"](states))

        blocks = {
            "self_attention": attend_to_target,
            "cross_attention": attend_to_source,
            "feedforward": feed_forward,
        }
        for block, apply in blocks.items():
            output = apply(number, layers[f"{block}_norm_of_decoder_{number}"](states))
            states = states + layers[f"{block}_dropout_of_decoder_{number}"](output)
    return layers["decoder_norm"](states)


def count_decoder_layers(layers: Mapping[str, Any]) -> int:
    """Return the number of blocks of a Transformer's decoder, from its layers by name."""
    return sum(name.startswith("cross_attention_norm_of_decoder_") for name in layers)


def is_transformer(model: keras.Model) -> bool:
    """Return True for a model of `build_transformer_translator`."""
    return any(layer.name == "decoder_norm" for layer in model.layers)


def _check_coverage_loss(coverage_loss: float) -> None:
    if coverage_loss < 0:
        raise ValueError(f"`coverage_loss` must not be negative. Received: coverage_loss={coverage_loss!r}.")


def _make_inputs() -> dict[str, Any]:
    return {name: keras.Input((None,), dtype="int32", name=name) for name in ("source", "previous")}


def _embed(side: str, size: int, ids: Any, embedding_dim: int, dropout: float) -> Any:
    vectors = keras.layers.Embedding(size, embedding_dim, name=f"{side}_embedding")(ids)
    return keras.layers.Dropout(dropout, name=f"{side}_dropout")(vectors)


def _predict(outputs: Any, target_size: int, dropout: float) -> Any:
    outputs = keras.layers.Dropout(dropout, name="output_dropout")(outputs)
    return keras.layers.Dense(target_size, "softmax", dtype="float32", name="probabilities")(outputs)
