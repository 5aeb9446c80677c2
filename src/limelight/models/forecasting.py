"""The Keras model of the forecaster: encode the past, let the horizon attend to it, and predict."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from limelight.core.validation import check_positive_int
from limelight.layers import Attention, AttentionPooling
from limelight.models.builders import apply_transformer, take_last
from limelight.scores import Additive

ARCHITECTURES = ("lstm", "transformer")


def build_forecaster(
    past: int,
    horizon: int,
    *,
    num_known: int = 0,
    num_observed: int = 0,
    num_static: int = 0,
    architecture: str = "lstm",
    attention: bool = True,
    units: int = 32,
    dropout: float = 0.1,
    quantiles: Sequence[float] | None = None,
    variable_selection: bool = False,
) -> keras.Model:
    r"""Build a forecaster: the last state of the encoder attends to all of its states.

    $$h = \mathrm{encode}(x), \qquad c = \sum_j w_j h_j, \quad w = \mathrm{softmax}_j\, v^\top \tanh(W h_P + U h_j + b), \qquad
    \hat y = A\,[h_P, c] + a$$

    The query is the last state, because the next values depend most on where the series stands now. A plain
    `AttentionPooling`, whose query is the same for all series, was far worse than repeating the last value: MASE 1.13 against
    0.71, and 0.65 with the last state as query.

    With covariates that are known in advance, each step of the horizon is a query of its own: the last state, the covariates of
    the step, and an embedding of its number.

    Args:
        past: Number of past steps P. A shorter series is padded at its end.
        horizon: Number of steps to forecast H.
        num_known: Number of covariates that are known in advance.
        num_observed: Number of covariates that are known up to the present.
        num_static: Number of covariates of the series themselves.
        architecture: "lstm", or "transformer": two causal blocks with rotary positions.
        attention: False for the same network with the last state alone.
        units: Units E of the encoder; of a transformer a multiple of 8.
        dropout: Fraction of the features that is dropped during training, in [0, 1).
        quantiles: Levels of the Q quantiles to forecast; one value for each step when not given.
        variable_selection: Weight the features of each step by attention over them, before the encoder.

    Returns:
        A model from a dict of `past` (B, P, 1 + observed + known), the value first; `mask` (B, P), bool, True where a step is
        real; `future` (B, H, known) and `static` (B, S) where there are such covariates; to forecasts (B, H), or (B, H, Q).

    Raises:
        ValueError: A size is not positive, a rate is not in [0, 1), or `architecture` is unknown.

    Example:
        >>> import numpy as np
        >>> model = build_forecaster(6, 3, units=5)
        >>> batch = {"past": np.ones((2, 6, 1), "float32"), "mask": np.ones((2, 6), bool)}
        >>> model.predict(batch, verbose=0).shape
        (2, 3)

    References:
        Bahdanau et al. 2015, arXiv:1409.0473 (the score); Lim et al. 2021, arXiv:1912.09363 (selection of variables).
    """
    for name, size in {"past": past, "horizon": horizon, "units": units}.items():
        check_positive_int(name, size)
    if architecture not in ARCHITECTURES:
        raise ValueError(f'`architecture` must be "lstm" or "transformer". Received: architecture={architecture!r}.')
    steps = keras.Input((past, 1 + num_observed + num_known), name="past")
    mask = keras.Input((past,), dtype="bool", name="mask")
    inputs = {"past": steps, "mask": mask}
    features = steps
    if num_static:
        inputs["static"] = keras.Input((num_static,), name="static")
        repeated = keras.layers.RepeatVector(past, name="repeated_static")(inputs["static"])
        features = keras.layers.Concatenate(name="features")([steps, repeated])
    if variable_selection:
        features = _select_variables(features, mask, units)
    states = _encode(features, mask, architecture, units, dropout)
    last = take_last(states, mask)
    if num_known:
        inputs["future"] = keras.Input((horizon, num_known), name="future")
        queries = _embed_horizon(last, inputs["future"], horizon, units)
    else:
        queries = ops.expand_dims(last, 1)
    if attention:
        attend = Attention(score=Additive(units), name="attention")
        context = attend(queries, states, mask=[None, mask])
        queries = keras.layers.Concatenate(name="query_and_context")([queries, context])
    queries = keras.layers.Dropout(dropout, name="query_dropout")(queries)
    outputs = _predict(queries, horizon, len(quantiles or ()) or 1, units)
    return keras.Model(inputs, outputs if quantiles else ops.squeeze(outputs, -1), name="forecaster")


def _select_variables(features: Any, mask: Any, units: int) -> Any:
    """Return the average (B, P, E) of the embedded features of each step, weighted by attention over them."""
    embedding = keras.layers.EinsumDense(
        "bpf,fe->bpfe", (None, features.shape[-1], units), bias_axes="fe", name="feature_embedding"
    )
    real = ops.repeat(ops.expand_dims(mask, -1), features.shape[-1], axis=-1)
    return AttentionPooling(name="variable_selection")(embedding(features), mask=real)


def _encode(features: Any, mask: Any, architecture: str, units: int, dropout: float) -> Any:
    """Return the states (B, P, E) of the past."""
    if architecture == "transformer":
        return apply_transformer(features, mask, units, dropout, causal=True)
    return keras.layers.LSTM(units, return_sequences=True, name="lstm")(features, mask=mask)


def _embed_horizon(last: Any, future: Any, horizon: int, units: int) -> Any:
    """Return a query (B, H, E) for each step of the horizon."""
    repeated = keras.layers.RepeatVector(horizon, name="repeated_last")(last)
    steps = keras.layers.EinsumDense("bhf,fe->bhe", (horizon, units), bias_axes="he", activation="tanh", name="horizon")
    return steps(keras.layers.Concatenate(name="last_and_future")([repeated, future]))


def _predict(vectors: Any, horizon: int, num_outputs: int, units: int) -> Any:
    """Return the forecasts (B, H, Q) of one vector (B, 1, F), or of one for each step (B, H, F)."""
    if vectors.shape[1] == horizon and horizon > 1:
        hidden = keras.layers.Dense(units, activation="relu", name="output_hidden")(vectors)
        return keras.layers.Dense(num_outputs, dtype="float32", name="outputs")(hidden)
    outputs = keras.layers.Dense(horizon * num_outputs, dtype="float32", name="outputs")(vectors)
    return keras.layers.Reshape((horizon, num_outputs), name="forecasts")(outputs)
