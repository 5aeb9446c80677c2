"""The contribution of attention heads to a prediction: their importance, and gradient times attention."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from limelight import _keras_private
from limelight.engine import backend
from limelight.inspection._observed_attention import export_call, to_numpy, to_source
from limelight.inspection.extractor import capture
from limelight.inspection.interventions import EditableModel, HeadOutputs, HeadSteps
from limelight.inspection.recorder import check_model
from limelight.inspection.token_axes import add_tokens
from limelight.maps import AttentionMap, AttentionMaps, WeightSource


def gradient_times_attention(
    model: Any,
    batch: Any,
    target: int | Callable[[Any], Any] | None = None,
    tokens: Any = None,
    layers: str | Sequence[str] | None = None,
) -> AttentionMaps:
    r"""Compute gradient times attention: to first order, what each weight contributed to the prediction.

    $$a_{ij} = w_{ij} \frac{\partial y}{\partial w_{ij}}$$

    with $y$ the target: positive if the attention from query $i$ to key $j$ speaks for it, negative if it speaks against it. If a
    layer averages values $v_j$, the derivative is $g_i \cdot v_j$ with $g_i$ the gradient at the head's output, so that no
    kernel has to change.

    A weight says where a model looked; this says what came of it, at this layer, with all else held fixed. Whether either
    explains the prediction is a question to test (`limelight.evaluate`).

    Args:
        model: a built model with differentiable attention.
        batch: the inputs of the model.
        target: what to explain: the index of an output (a class), or a function of the model's outputs whose sum over the batch
            is differentiated. By default the largest output of each example, or the only one.
        tokens: as in `capture`.
        layers: patterns of the layers' paths, such as "decoder/*"; all by default.

    Returns:
        Maps as from `capture`, with signed $a$ (B, N, T, S) in place of weights. They hold all of it: choose `layers` if inputs
        are long.

    Raises:
        TypeError: `model` is no model or layer of Keras.
        ValueError: the model has several outputs and `target` is no function, or there is no such class.

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
    editable = EditableModel(model, batch, layers)
    gradients = editable.gradients(batch, lambda outputs: ops.sum(_select_target(outputs, target)))
    maps = AttentionMaps(
        AttentionMap(each.path, _multiply_steps(each, gradient), each.call_index, each.steps[0].record.layer)
        for each, gradient in zip(editable.attentions, gradients, strict=True)
    )
    return add_tokens(maps, tokens, model, (batch, {}), lambda inputs: capture(model, inputs[0], layers=layers))


def _multiply_steps(heads: HeadSteps, gradients: list[Any]) -> WeightSource:
    """Multiply the weights of an attention with the gradient by each of them."""
    products = [_multiply(step, gradient) for step, gradient in zip(heads.steps, gradients, strict=True)]
    return WeightSource(np.concatenate(products, axis=-2))


def _multiply(heads: HeadOutputs, gradient: Any) -> np.ndarray:
    weights = AttentionMap("", to_source(*export_call(heads.record.call))).weights()
    gradient = to_numpy(heads.to_heads(gradient)).astype(np.float32)  # (B, ..., N, T, V), or by the weights themselves
    if heads.value is not None:
        value = to_numpy(heads.value).astype(np.float32)
        value = value.repeat(gradient.shape[-3] // value.shape[-3], axis=-3)
        gradient = gradient @ np.swapaxes(value, -1, -2)
    return weights * gradient.reshape(weights.shape)


def _select_target(outputs: Any, target: int | Callable[[Any], Any] | None) -> Any:
    """Return the numbers of a model's outputs that are to be explained."""
    if callable(target):
        return target(outputs)
    if isinstance(outputs, (list, tuple, dict)):
        raise ValueError(
            "`target` must be a function of the outputs if there are several. "
            f"Received: target={target!r} and {len(outputs)} outputs."
        )
    if target is None:
        return ops.max(outputs, axis=-1)
    if not -outputs.shape[-1] <= target < outputs.shape[-1]:
        raise ValueError(f"`target` must be one of the {outputs.shape[-1]} outputs. Received: target={target}.")
    return outputs[..., target]


def head_importance(
    model: Any,
    batch: Any,
    targets: Any = None,
    *,
    loss: Any = None,
    by: str = "gradient",
    layers: str | Sequence[str] | None = None,
) -> dict[str, np.ndarray]:
    r"""Compute how much a model depends on each of its heads, on one batch.

    With a gate $\xi_h$ on the output of each head, 1 in the model as it is, and $\mathcal{L}_b$ the loss of example $b$:

    $$I_h = \frac{1}{B} \sum_b \left| \frac{\partial \mathcal{L}_b}{\partial \xi_h} \right| \quad (\text{gradient}), \qquad
    I_h = \mathcal{L}(\xi_h = 0) - \mathcal{L} \quad (\text{masking}).$$

    The gradient takes two runs of the model, forward and backward; masking takes one run for each head. A gradient says what a
    small change does, masking what the loss of a head does; where they disagree, trust masking. Masking one head is not masking
    all: others may do the same work.

    Args:
        model: a built model.
        batch: the inputs of the model. All examples have the same weight.
        targets: the targets that belong to the inputs; for several outputs, a dict or list of them.
        loss: a loss of Keras or its name, a function of (targets, outputs), or without `targets` a function of the outputs alone.
            It returns one number for each example, or several, which are averaged. For several outputs, a dict or list of
            losses, which are added. By default the loss that the model was compiled with, with its weights.
        by: "gradient" or "masking".
        layers: patterns of the layers' paths, such as "decoder/*"; all by default.

    Returns:
        The importance (N,) of the heads, by the key of the layer's map. By masking it is negative if the loss is lower without
        the head.

    Raises:
        TypeError: `model` is no model or layer of Keras.
        ValueError: there is no loss, it does not return one number for each example, or `by` is unknown.

    Example:
        >>> import keras, numpy as np, limelight as ll
        >>> steps = keras.Input((5, 8))
        >>> mixed = keras.layers.MultiHeadAttention(2, 4, name="mixing")(steps, steps)
        >>> model = keras.Model(steps, keras.layers.Dense(3, "softmax")(mixed[:, 0]))
        >>> importance = ll.inspection.head_importance(
        ...     model, np.ones((4, 5, 8)), np.array([0, 1, 2, 0]), loss="sparse_categorical_crossentropy")
        >>> importance["mixing"].shape
        (2,)

    References:
        Michel et al. 2019, arXiv:1905.10650.
    """
    check_model(model)
    if by not in ("gradient", "masking"):
        raise ValueError(f'`by` must be "gradient" or "masking". Received: by={by!r}.')
    example_losses = _make_example_losses(model, targets, loss)
    editable = EditableModel(model, batch, layers)
    attentions = editable.attentions
    if by == "gradient":
        gradients = editable.gradients(batch, lambda outputs: ops.sum(example_losses(outputs)))
        return {each.key: _average_gates(each, gradient) for each, gradient in zip(attentions, gradients, strict=True)}
    unmasked = float(np.mean(to_numpy(example_losses(editable.outputs))))
    importance = {}
    for each in attentions:
        masked = [_run_without_head(editable, batch, each, head) for head in range(each.shape[-3])]
        losses = [float(np.mean(to_numpy(example_losses(outputs)))) for outputs in masked]
        importance[each.key] = np.array(losses) - unmasked
    return importance


def _average_gates(heads: HeadSteps, gradients: list[Any]) -> np.ndarray:
    """Return the mean absolute gradient by the gate of each head, which all steps share."""
    gates = sum(_sum_gates(step, gradient) for step, gradient in zip(heads.steps, gradients, strict=True))
    return np.abs(gates).mean(axis=0)


def _sum_gates(heads: HeadOutputs, gradient: Any) -> np.ndarray:
    """Return the gradient (B, N) by the gate of each head: that of a product by its factor."""
    gates = to_numpy(heads.to_heads(heads.output * gradient)).astype(np.float64)  # (B, ..., N, T, V)
    gates = np.moveaxis(gates, -3, 1)
    return gates.reshape(*gates.shape[:2], -1).sum(axis=-1)


def _run_without_head(editable: EditableModel, batch: Any, heads: HeadSteps, head: int) -> Any:
    """Return the outputs of a model without one head."""

    def mask_head(found: HeadOutputs, now: HeadOutputs) -> Any:
        if found not in heads.steps:
            return now.output
        return now.output * ops.cast(_make_gate(found, head), now.output.dtype)

    with backend.active().no_gradient():
        return editable.run_stateless(batch, mask_head)


def _make_gate(heads: HeadOutputs, head: int) -> np.ndarray:
    """Return zeros where the outputs of the heads belong to one of them, and ones elsewhere."""
    shape = tuple(heads.output.shape)
    # Transpose the indices as the output is transposed, to find which of its numbers belong to the head.
    indices = to_numpy(heads.to_heads(ops.reshape(ops.arange(int(np.prod(shape)), dtype="int32"), shape)))
    gate = np.ones(int(np.prod(shape)), "float32")
    gate[indices[..., head, :, :].ravel()] = 0
    return gate.reshape(shape)


def _make_example_losses(model: Any, targets: Any, loss: Any) -> Callable[[Any], Any]:
    """Return a function from the model's outputs to one loss for each example."""
    loss_weights = None
    if loss is None and getattr(model, "loss", None) is not None:
        loss, loss_weights = model.loss, _keras_private.get_compile_arguments(model).get("loss_weights")
    if loss is None:
        raise ValueError("There must be a loss: pass `loss`, or compile the model with one. Received: loss=None.")
    if targets is None and (not callable(loss) or isinstance(loss, keras.losses.Loss)):
        raise ValueError(f"Without `targets`, `loss` must be a function of the outputs. Received: loss={loss!r}.")

    def example_losses(outputs: Any) -> Any:
        if targets is None:
            return _average_examples(loss(outputs))
        terms = []
        for index, (name, output) in enumerate(_name_outputs(model, outputs)):
            output_loss, target, weight = (_select_output(x, index, name) for x in (loss, targets, loss_weights))
            if output_loss is None:
                continue
            output_loss = keras.losses.get(output_loss)
            function = output_loss.call if isinstance(output_loss, keras.losses.Loss) else output_loss
            term = _average_examples(function(*_match_rank(ops.convert_to_tensor(target), output)))
            terms.append(term if weight is None else term * weight)
        if not terms:
            raise ValueError(f"There must be a loss for an output of the model. Received: loss={loss!r}.")
        return sum(terms[1:], terms[0])

    return example_losses


def _name_outputs(model: Any, outputs: Any) -> list[tuple[Any, Any]]:
    """Return the name and the value of each output, in the order in which Keras has them."""
    if isinstance(outputs, Mapping):
        return list(outputs.items())
    if not isinstance(outputs, (list, tuple)):
        return [(None, outputs)]
    names = getattr(model, "output_names", None) or ()
    return list(zip(names if len(names) == len(outputs) else range(len(outputs)), outputs, strict=True))


def _select_output(values: Any, index: int, name: Any) -> Any:
    """Return what belongs to one output: of several by name or in order, the only one of a model with one, or one for all."""
    if isinstance(values, Mapping):
        return next(iter(values.values())) if name is None and len(values) == 1 else values.get(name)
    if isinstance(values, (list, tuple)) and name is not None:
        return values[index]
    return values


def _average_examples(losses: Any) -> Any:
    """Average the losses of each example."""
    losses = ops.cast(losses, "float32")
    if len(losses.shape) == 0:
        raise ValueError(
            "`loss` must return one number for each example, so that examples do not cancel. Received: a scalar."
        )
    return ops.mean(ops.reshape(losses, (losses.shape[0], -1)), axis=-1)


def _match_rank(targets: Any, outputs: Any) -> tuple[Any, Any]:
    """Give the targets the rank of the outputs if only an axis of length 1 is missing or added, as `model.fit` does."""
    if len(targets.shape) + 1 == len(outputs.shape) and outputs.shape[-1] == 1:
        return ops.expand_dims(targets, -1), outputs
    if len(targets.shape) == len(outputs.shape) + 1 and targets.shape[-1] == 1:
        return ops.squeeze(targets, -1), outputs
    return targets, outputs
