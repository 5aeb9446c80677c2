"""Which attention moved the prediction: the weights times what a change of each would do."""

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from limelight.inspection import batching, interventions
from limelight.inspection.interventions import Heads
from limelight.inspection.observation import array, read
from limelight.maps import AttentionMap, AttentionMaps, WeightSource


def gradient_times_attention(
    model: Any,
    batch: Any,
    target: int | Callable[[Any], Any] | None = None,
    tokens: Any = None,
    layers: str | Sequence[str] | None = None,
) -> AttentionMaps:
    r"""Gradient times attention: what each weight did for the prediction, to first order.

    $$a_{ij} = w_{ij} \frac{\partial y}{\partial w_{ij}}$$

    with $y$ the target: positive where the attention from query $i$ to key $j$ speaks for it, negative where it speaks against
    it. Where a layer averages values $v_j$, the derivative is $g_i \cdot v_j$ with $g_i$ the gradient at the head's output, so
    that no kernel has to change.

    A weight says where a model looked; this says what came of it, at this layer, with all else held. Whether either explains the
    prediction is a question to test (`limelight.evaluate`).

    Args:
        model: a built model with differentiable attention.
        batch: what the model takes.
        target: what is explained: the number of an output (a class), or a function of the model's outputs whose sum over the
            batch is differentiated. Where None: the largest output of each example, or the only one.
        tokens: as `capture` takes them.
        layers: patterns of the layers' paths, such as "decoder/*"; all where None.

    Returns:
        Maps as `capture` gives them, with signed $a$ (B, N, T, S) in place of weights. They hold all of it: choose
        `layers` where inputs are long.

    Raises:
        TypeError: `model` is no model or layer of Keras.
        ValueError: several outputs and no function to choose among them, or a class that there is not.

    Example:
        >>> import keras, numpy as np, limelight as ll
        >>> steps = keras.Input((3, 4))
        >>> mixed = keras.layers.MultiHeadAttention(2, 4, name="mixing")(steps, steps)
        >>> model = keras.Model(steps, keras.layers.Dense(2, "softmax")(mixed[:, 0]))
        >>> ll.inspection.gradient_times_attention(model, np.ones((1, 3, 4)), target=1)["mixing"].shape
        (1, 2, 3, 3)

    References:
        Barkan et al. 2021, "Grad-SAM", arXiv:2204.11073; Chefer et al. 2021, arXiv:2103.15679.
    """
    if not isinstance(model, keras.Layer):
        raise TypeError(
            f"`model` must be a model or layer of Keras. Received: {model!r} of type {type(model).__name__}."
        )
    _, found = interventions.heads(model, batch, layers)
    slopes = interventions.slopes(model, batch, layers, found, lambda outputs: ops.sum(_chosen(outputs, target)))
    maps = AttentionMaps(
        AttentionMap(one.record.path, _signed(one, slope), one.call, one.record.layer)
        for one, slope in zip(found, slopes, strict=True)
    )
    return maps if tokens is None else maps.with_tokens(tokens, batching.padded_length(batch, tokens))


def _signed(one: Heads, slope: Any) -> WeightSource:
    source = read(*one.record.seen.split())
    slope = array(one.laid_out(slope)).astype(np.float32)
    weights = np.stack(
        [
            source.block(example, np.arange(source.shape[-3]), np.arange(source.shape[-2]))
            for example in np.ndindex(*source.shape[:-3])
        ]
    ).reshape(source.shape)
    if one.value is not None:
        value = array(one.value).astype(np.float32)
        value = value.repeat(slope.shape[-3] // value.shape[-3], axis=-3)
        slope = slope @ np.swapaxes(value, -1, -2)
    return WeightSource(weights * slope.reshape(weights.shape))


def _chosen(outputs: Any, target: int | Callable[[Any], Any] | None) -> Any:
    """The numbers of a model's outputs that are explained."""
    if callable(target):
        return target(outputs)
    if isinstance(outputs, (list, tuple, dict)):
        raise ValueError(
            "`target` must be a function of the outputs where there are several. "
            f"Received: target={target!r} and {len(outputs)} outputs."
        )
    if target is None:
        return ops.max(outputs, axis=-1)
    if not -outputs.shape[-1] <= target < outputs.shape[-1]:
        raise ValueError(f"`target` must be one of the {outputs.shape[-1]} outputs. Received: target={target}.")
    return outputs[..., target]
