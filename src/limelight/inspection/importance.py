"""How much a model needs each of its heads."""

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from limelight.inspection import interventions, tracing
from limelight.inspection.interventions import Heads
from limelight.inspection.observation import array


def head_importance(
    model: Any,
    batch: Any,
    targets: Any = None,
    *,
    loss: Any = None,
    by: str = "gradient",
    layers: str | Sequence[str] | None = None,
) -> dict[str, np.ndarray]:
    r"""How much a model needs each of its heads, on one batch.

    With a gate $\xi_h$ on the output of each head, 1 in the model as it is, and $\mathcal{L}_b$ the loss of example $b$:

    $$I_h = \frac{1}{B} \sum_b \left| \frac{\partial \mathcal{L}_b}{\partial \xi_h} \right| \quad (\text{gradient}), \qquad
    I_h = \mathcal{L}(\xi_h = 0) - \mathcal{L} \quad (\text{masking}).$$

    By gradient costs two runs of the model, forward and backward; by masking one run for each head. A gradient says what a small
    change does, masking what the loss of a head does; where they disagree, masking is what happened. One head masked is
    not all heads masked: others may do the same work.

    Args:
        model: a built model.
        batch: what the model takes. All its examples count alike.
        targets: what the model should have answered.
        loss: a loss of Keras or its name, or a function of (targets, outputs), or of the outputs alone where `targets` is
            None. It gives one number for each example, or several, which are averaged. The loss that the model was compiled
            with where None.
        by: "gradient" or "masking".
        layers: patterns of the layers' paths, such as "decoder/*"; all where None.

    Returns:
        By the key that `capture` gives a map, (N,). Masking may give negative numbers: without the head the loss is lower.

    Raises:
        TypeError: `model` is no model or layer of Keras.
        ValueError: no loss, a loss that is not one number for each example, or another `by`.

    Example:
        >>> import keras, numpy as np, limelight as ll
        >>> steps = keras.Input((5, 8))
        >>> mixed = keras.layers.MultiHeadAttention(2, 4, name="mixing")(steps, steps)
        >>> model = keras.Model(steps, keras.layers.Dense(3, "softmax")(mixed[:, 0]))
        >>> found = ll.inspection.head_importance(model, np.ones((4, 5, 8)), np.array([0, 1, 2, 0]), loss="sparse_categorical_crossentropy")
        >>> found["mixing"].shape
        (2,)

    References:
        Michel et al. 2019, arXiv:1905.10650.
    """
    if by not in ("gradient", "masking"):
        raise ValueError(f'`by` must be "gradient" or "masking". Received: by={by!r}.')
    examples = _losses(model, targets, loss)
    outputs, found = interventions.heads(model, batch, layers)
    if by == "masking":
        whole = float(np.mean(array(examples(outputs))))
        return {
            one.key: np.array(
                [_masked(model, batch, layers, one, head, examples) - whole for head in range(_count(one))]
            )
            for one in found
        }
    slopes = interventions.slopes(model, batch, layers, found, lambda outputs: ops.sum(examples(outputs)))
    return {one.key: _by_gradient(one, slope) for one, slope in zip(found, slopes, strict=True)}


def _by_gradient(one: Heads, slope: Any) -> np.ndarray:
    # A gate moves what it multiplies: its gradient is the result times the result's own.
    moved = array(one.laid_out(one.result * slope)).astype(np.float64)  # (B, ..., N, T, V)
    moved = np.moveaxis(moved, -3, 1)
    return np.abs(moved.reshape(*moved.shape[:2], -1).sum(axis=-1)).mean(axis=0)


def _count(one: Heads) -> int:
    return int(one.laid_out(one.result).shape[-3])


def _masked(model: Any, batch: Any, layers: Any, one: Heads, head: int, examples: Callable[[Any], Any]) -> float:
    """The mean loss without one head."""
    # Which numbers of the result are the head's: they are laid out by their places, as the result is.
    shape = tuple(one.result.shape)
    places = array(one.laid_out(ops.reshape(ops.arange(int(np.prod(shape)), dtype="int32"), shape)))
    gate = np.ones(int(np.prod(shape)), "float32")
    gate[places[..., head, :, :].ravel()] = 0

    def silence(record: Any, result: Any, *_: Any) -> Any:
        if record.number != one.record.number:
            return result
        return result * ops.cast(gate.reshape(shape), result.dtype)

    with tracing.no_gradient():
        outputs, _ = interventions.run(model, batch, interventions.patterns(layers), silence)
    return float(np.mean(array(examples(outputs))))


def fitting(targets: Any, outputs: Any) -> tuple[Any, Any]:
    """Targets and outputs with as many axes, where one has one more of length 1, (B,) and (B, 1): as `compile` takes them."""
    if len(targets.shape) + 1 == len(outputs.shape) and outputs.shape[-1] == 1:
        return ops.expand_dims(targets, -1), outputs
    if len(targets.shape) == len(outputs.shape) + 1 and targets.shape[-1] == 1:
        return ops.squeeze(targets, -1), outputs
    return targets, outputs


def _losses(model: Any, targets: Any, loss: Any) -> Callable[[Any], Any]:
    """A function from the model's outputs to one loss for each example."""
    if not isinstance(model, keras.Layer):
        raise TypeError(
            f"`model` must be a model or layer of Keras. Received: {model!r} of type {type(model).__name__}."
        )
    loss = getattr(model, "loss", None) if loss is None else loss
    if loss is None:
        raise ValueError("There must be a loss: pass `loss`, or compile the model with one. Received: loss=None.")
    if targets is None:
        if not callable(loss) or isinstance(loss, keras.losses.Loss):
            raise ValueError(f"Without `targets`, `loss` must be a function of the outputs. Received: loss={loss!r}.")
        function = loss
    else:
        given = keras.losses.get(loss)
        compare = given.call if isinstance(given, keras.losses.Loss) else given

        def function(outputs: Any) -> Any:
            return compare(*fitting(ops.convert_to_tensor(targets), outputs))

    def examples(outputs: Any) -> Any:
        found = ops.cast(function(outputs), "float32")
        if len(found.shape) == 0:
            raise ValueError(
                "`loss` must give one number for each example, so that examples do not cancel. Received: a scalar."
            )
        return ops.mean(ops.reshape(found, (found.shape[0], -1)), axis=-1)

    return examples
