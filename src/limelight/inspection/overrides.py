"""Run a model with attention weights of one's own: uniform or permuted ones, silenced heads, forbidden keys."""

import fnmatch
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from keras import ops

from limelight import functional
from limelight.core.precision import upcast
from limelight.engine import backend
from limelight.engine.dense import repeat_heads
from limelight.exceptions import AttentionError
from limelight.inspection._observed_attention import to_numpy
from limelight.inspection.interventions import EditableModel, HeadOutputs, HeadSteps

# Receives the weights of an attention (B, ..., N, T, S), and bool of this shape, True where it may attend; returns new weights.
WeightFunction = Callable[[Any, Any], Any]


def override_attention(
    model: Any, batch: Any, weights: Any, layers: str | Sequence[str] | None = None, *, return_weights: bool = False
) -> Any:
    r"""Run a model with other attention weights, and return its outputs.

    The output of each head becomes $\sum_j w'_{ij} v_j$ with the weights $w'$ that are given; all else in the model is computed
    as ever, from the layer's own values $v$. The model runs in inference mode, and is the same afterwards.

    A row that may attend to nothing (a padded query) keeps its output.

    Args:
        model: a built model.
        batch: the inputs of the model.
        weights: an array that broadcasts to (B, N, T, S); or a function of the layer's own weights (B, N, T, S) and of a bool
            tensor of the same shape, True where it may attend (of a layer of which only a softmax is seen, where its own weights
            are above zero), that returns new weights, in operations of Keras:
            `uniform_weights` is one, and `permute_keys`, `silence_heads` and `forbid_keys` return one. In a loop in Python the
            function receives the weights (B, N, 1, S) of one step after the other. Or a dict of these by the key of the layer's
            map, or a pattern of it: the layers that it does not name keep their own weights.
        layers: patterns of the layers' paths, such as "decoder/*"; all attention by default.
        return_weights: return the new weights too.

    Returns:
        The outputs of the model; with `return_weights` also a dict of the weights of each layer (B, N, T, S), as used, by key.

    Raises:
        TypeError: `model` is no model or layer of Keras.
        AttentionError: the weights of no layer can be changed, or the model attends in another way in each run.
        ValueError: a name of the dict matches none, the shape of weights does not fit, or weights are negative or not finite.

    Example:
        >>> import keras, numpy as np, limelight as ll
        >>> steps = keras.Input((None, 2))
        >>> model = keras.Model(steps, ll.layers.AttentionPooling(name="pool")(steps))
        >>> x = np.array([[[1.0, 0.0], [3.0, 4.0]]], "float32")
        >>> outputs = ll.inspection.override_attention(model, x, ll.inspection.uniform_weights)
        >>> keras.ops.convert_to_numpy(outputs)
        array([[2., 2.]], dtype=float32)
        >>> outputs = ll.inspection.override_attention(model, x, {"pool": np.array([0.0, 1.0])})
        >>> keras.ops.convert_to_numpy(outputs)
        array([[3., 4.]], dtype=float32)
    """
    overridden = OverriddenModel(model, batch, layers)
    replacements = {key: _check_weights(key, value) for key, value in overridden.match(weights).items()}
    variables = model.non_trainable_variables
    values = [variable.value for variable in variables]
    with backend.active().no_gradient():
        (outputs, used), _ = backend.run_stateless(overridden.run, variables, values, batch, replacements)
    if not return_weights:
        return outputs
    return outputs, {key: to_numpy(attention.weights) for key, attention in used.items()}


def _check_weights(key: str, replacement: Any) -> Any:
    """Check an array of weights, and return it; of a function, return one whose results are checked.

    Raises:
        ValueError: weights are negative or not finite.
    """
    if replacement is None:
        return None
    if callable(replacement):
        return lambda weights, permitted: _check_weights(key, replacement(weights, permitted))
    array = to_numpy(replacement) if ops.is_tensor(replacement) else np.asarray(replacement)
    is_valid = np.isfinite(array) & (array >= 0)
    if not is_valid.all():
        invalid = array[~is_valid]
        raise ValueError(
            f"The weights of {key!r} must be finite and not negative. Received: {len(invalid)} of {array.size} that are not, "
            f"such as {invalid[0]}. Use zero where a query is not to attend."
        )
    return replacement


def uniform_weights(weights: Any, permitted: Any) -> Any:
    """Return equal weights for all keys that a query may attend to.

    Of a layer of which only a softmax is seen, these are the keys with a weight above zero: one whose weight is too small for the
    precision, and so is zero, counts as one that it may not attend to.
    """
    return _normalize(ops.cast(permitted, weights.dtype), 1.0)


def permute_keys(permutation: Any) -> WeightFunction:
    """Return a function that permutes the weights of each query.

    Args:
        permutation: (S,), or broadcastable to (B, N, T, S) of the weights: the index of the key whose weight each key gets. Keep
            padded keys where they are.

    Example:
        >>> weights = ops.convert_to_tensor([[[[0.7, 0.2, 0.1]]]])
        >>> ops.convert_to_numpy(permute_keys([1, 2, 0])(weights, weights > 0))[0, 0, 0]
        array([0.2, 0.1, 0.7], dtype=float32)
    """

    def permute(weights: Any, permitted: Any) -> Any:
        _check_keys("permutation", np.shape(permutation), np.shape(permutation), weights)
        indices = ops.broadcast_to(ops.convert_to_tensor(np.asarray(permutation), dtype="int32"), weights.shape)
        return ops.take_along_axis(weights, indices, axis=-1)

    return permute


def silence_heads(heads: int | Sequence[int]) -> WeightFunction:
    """Return a function that makes the weights of some heads zero, so that they contribute nothing.

    Raises:
        ValueError: there is no such head.

    Example:
        >>> ops.convert_to_numpy(silence_heads(0)(ops.ones((1, 2, 1, 1)), None)).ravel()
        array([0., 1.], dtype=float32)
    """
    indices = [heads] if isinstance(heads, int | np.integer) else list(heads)

    def silence(weights: Any, permitted: Any) -> Any:
        count = int(weights.shape[-3])
        if not all(0 <= head < count for head in indices):
            raise ValueError(f"`heads` must be from 0 to {count - 1}. Received: heads={indices}.")
        gate = np.ones((count, 1, 1), "float32")
        gate[indices] = 0
        return weights * ops.cast(gate, weights.dtype)

    return silence


def forbid_keys(forbidden: Any) -> WeightFunction:
    """Return a function that takes the weight from some keys and gives it to the other keys, in proportion to theirs.

    Args:
        forbidden: bool, True at keys that no query may attend to: (S,), (B, S), or (B, N, T, S). A query without another key gets
            weights of zero.

    Raises:
        ValueError: `forbidden` has another shape.

    Example:
        >>> weights = ops.convert_to_tensor([[[[0.5, 0.25, 0.25]]]])
        >>> ops.convert_to_numpy(forbid_keys([True, False, False])(weights, weights > 0))[0, 0, 0]
        array([0. , 0.5, 0.5], dtype=float32)
    """
    mask = np.asarray(forbidden, bool)

    def forbid(weights: Any, permitted: Any) -> Any:
        rank = len(weights.shape)
        if mask.ndim not in (1, 2, rank):
            raise ValueError(
                f"`forbidden` must have the shape (S,), (B, S) or that of the weights, {tuple(weights.shape)}. Received: shape "
                f"{mask.shape}. Add the axes that are missing, of length 1."
            )
        expanded = np.expand_dims(mask, tuple(range(1, rank - 1))) if mask.ndim == 2 else mask
        # For one example there may be several sets of keys.
        _check_keys("forbidden", mask.shape, expanded.shape[weights.shape[0] == 1 and mask.ndim > 1 :], weights)
        kept = ops.where(ops.convert_to_tensor(expanded), ops.zeros_like(weights), weights)
        return _normalize(kept, ops.sum(weights, axis=-1, keepdims=True))

    return forbid


def _check_keys(name: str, received: tuple[int, ...], shape: tuple[int, ...], weights: Any) -> None:
    """Check that an argument about keys broadcasts to weights.

    Args:
        name: its name.
        received: its shape, as the user gave it.
        shape: its shape, as it is used.
        weights: the weights (B, ..., N, T, S).

    Raises:
        ValueError: it does not broadcast.
    """
    sizes = tuple(weights.shape)
    pairs = zip(shape[::-1], sizes[::-1], strict=False)
    if len(shape) > len(sizes) or not all(size is None or length in (1, size) for length, size in pairs):
        raise ValueError(
            f"`{name}` must have the shape (S,), or one that broadcasts to the weights (B, ..., N, T, S). Received: shape "
            f"{received} for weights {sizes}. Give it {sizes[-1]} keys, and {sizes[0]} examples if it is to have examples."
        )


def _normalize(weights: Any, total: Any) -> Any:
    """Scale each row to a sum; a row of zeros stays zero."""
    sums = ops.sum(weights, axis=-1, keepdims=True)
    return weights * (total / ops.where(sums > 0, sums, ops.ones_like(sums)))


class OverriddenModel:
    """A model whose attention weights, and whose embeddings or inputs, are arguments. It runs eagerly or inside a trace.

    Args:
        model: a built model.
        batch: inputs of the model, on which its attention is found; one example is enough.
        layers: patterns of the layers' paths; all by default.

    Attributes:
        attentions: what was found, in the order in which it runs.
    """

    def __init__(self, model: Any, batch: Any, layers: str | Sequence[str] | None = None) -> None:
        self._editable = EditableModel(model, batch, layers)
        self.attentions = self._editable.attentions
        if not self.attentions:
            raise AttentionError(
                "The model must have attention whose weights can be changed: that of layers of limelight or Keras, of a fused "
                "attention or of a softmax, outside of loops. Received: a model in which none was seen."
            )
        self._by_step = {step: each for each in self.attentions for step in each.steps}

    @property
    def keys(self) -> list[str]:
        """The keys of the attention, as in `AttentionMaps`."""
        return [each.key for each in self.attentions]

    def get_attention(self, key: str) -> HeadSteps:
        """Return the attention of a key, as it was found."""
        return next(each for each in self.attentions if each.key == key)

    def match(self, weights: Any) -> dict[str, Any]:
        """Return the array or function of each key that `weights` names: see `override_attention`."""
        if not isinstance(weights, Mapping):
            return dict.fromkeys(self.keys, weights)
        matched: dict[str, Any] = {}
        for name, value in weights.items():
            keys = [key for key in self.keys if fnmatch.fnmatchcase(key, name)]
            if not keys:
                raise ValueError(
                    f"`weights` must be named by the attention of the model: {', '.join(self.keys)}. Received: {name!r}."
                )
            matched.update(dict.fromkeys(keys, value))
        return matched

    def run(
        self, batch: Any, replacements: Mapping[str, Any], embed: Callable[[Any, Any], Any] | None = None
    ) -> tuple[Any, dict[str, "AttentionTensors"]]:
        """Run the model in inference mode. What keeps its state (`run_stateless`) is up to the caller.

        Args:
            batch: the inputs.
            replacements: arrays or functions by key, from `match`. The batch axis of an array may be a multiple of that of the
                inputs, with the rows of an example side by side, if the rest of the model takes as many.
            embed: receives the ids and the output of each embedding, and returns what the model is to use in its place.

        Returns:
            The outputs, and the tensors of each key that was replaced or, for `replacements[key] = None`, its own.

        Raises:
            AttentionError: the model attends in another way than in the run that found its attention.
        """
        used: dict[str, list[AttentionTensors]] = {key: [] for key in self.keys if key in replacements}
        errors: list[Exception] = []

        def change(found: HeadOutputs, heads: HeadOutputs) -> Any:
            attention = self._by_step[found]
            key = attention.key
            if key not in replacements:
                return heads.output
            try:
                output, tensors = replace_weights(heads, _take_step(attention, found, replacements[key]))
            except Exception as error:
                errors.append(error)
                raise
            used[key].append(tensors)
            return output

        try:
            outputs = self._editable.run(batch, change, embed)
        except Exception:
            if errors:
                # Keras has raised another error in its place, whose message is about the layer and its arguments.
                raise errors[0] from None
            raise
        return outputs, {key: _join_steps(steps) for key, steps in used.items()}


def _take_step(attention: HeadSteps, step: HeadOutputs, replacement: Any) -> Any:
    """Return the part of an array that belongs to a step of a loop; a function is for each of them."""
    count = len(attention.steps)
    if count == 1 or replacement is None or callable(replacement):
        return replacement
    replacement = ops.convert_to_tensor(replacement)
    if len(replacement.shape) < 2 or replacement.shape[-2] == 1:
        return replacement
    if replacement.shape[-2] != count:
        raise _shape_error(attention.path, attention.shape, replacement)
    index = attention.steps.index(step)
    return replacement[..., index : index + 1, :]


class AttentionTensors(NamedTuple):
    """The tensors from which an attention computes its output.

    Args:
        weights: (B, ..., N, T, S).
        permitted: bool, of the same shape, True where a query may attend; if only the weights were seen, where these are above
            zero.
        values: (B, ..., N, S, V), zero where padded; None if only the weights were seen, or if the steps of a loop have values of
            their own.
    """

    weights: Any
    permitted: Any
    values: Any


def _join_steps(steps: list[AttentionTensors]) -> AttentionTensors:
    """Join the tensors of the steps of a loop, which have one query each."""
    if len(steps) == 1:
        return steps[0]
    weights, permitted = (ops.concatenate(tensors, axis=-2) for tensors in list(zip(*steps, strict=True))[:2])
    return AttentionTensors(weights, permitted, None)


def get_tensors(heads: HeadOutputs) -> AttentionTensors:
    """Return the tensors of an attention."""
    transposed = heads.to_heads(heads.output)
    if heads.value is None:
        return AttentionTensors(transposed, transposed > 0, None)
    call = heads.record.call
    batch = tuple(ops.shape(transposed))[:-3]
    weights = functional.compute_weights(call)
    shape = tuple(ops.shape(weights))
    mask = ops.ones((), "bool") if call.mask is None else call.mask(call.block)
    permitted = ops.broadcast_to(mask, shape)
    # Values that stand for padding are zero, as in the layer itself.
    value = ops.reshape(heads.value, (-1, *tuple(ops.shape(heads.value))[-3:]))
    value = upcast(call.prepare_value(value))
    value = ops.broadcast_to(repeat_heads(value, call.query), (*shape[:2], *tuple(ops.shape(value))[-2:]))
    tensors = (ops.reshape(tensor, (*batch, *tuple(ops.shape(tensor))[1:])) for tensor in (weights, permitted, value))
    return AttentionTensors(*tensors)


def replace_weights(heads: HeadOutputs, replacement: Any) -> tuple[Any, AttentionTensors]:
    """Return the output of an attention for other weights, and what it is computed from.

    Args:
        heads: the outputs of its heads.
        replacement: an array, a function, or None to change nothing.
    """
    own = get_tensors(heads)
    if replacement is None:
        return heads.output, own
    weights = own.weights
    given = replacement(weights, own.permitted) if callable(replacement) else replacement
    given = ops.cast(ops.convert_to_tensor(given), weights.dtype)
    rows, count = weights.shape[0], given.shape[0] if len(given.shape) == len(weights.shape) else 1
    times = count // rows if rows and count > rows and count % rows == 0 else 1
    try:
        given = ops.broadcast_to(given, (rows * times, *tuple(ops.shape(weights))[1:]))
    except Exception as error:  # Each backend raises its own.
        raise _shape_error(heads.record.path, tuple(weights.shape), given) from error
    output = _repeat(heads.output, times)
    if own.values is None:
        return from_heads(given, output, heads.to_heads), own._replace(weights=given)
    permitted, values, kept = (_repeat(x, times) for x in (*own[1:], heads.to_heads(heads.output)))
    averaged = ops.cast(ops.matmul(ops.cast(given, values.dtype), values), output.dtype)
    replaced = ops.where(ops.any(permitted, axis=-1, keepdims=True), averaged, kept)
    return from_heads(replaced, output, heads.to_heads), AttentionTensors(given, permitted, values)


def _repeat(tensor: Any, times: int) -> Any:
    return ops.repeat(tensor, times, axis=0) if times > 1 else tensor


def _shape_error(path: str, shape: tuple, given: Any) -> ValueError:
    return ValueError(f"The weights of {path!r} must broadcast to {shape}. Received: shape {tuple(given.shape)}.")


def from_heads(heads: Any, output: Any, to_heads: Callable[[Any], Any]) -> Any:
    """Undo `to_heads`: give a tensor (B, ..., N, T, V) the axes of `output`. Numbers that `to_heads` leaves out are kept."""
    transposed = to_heads(output)
    if transposed is output:
        return heads
    if tuple(transposed.shape) != tuple(heads.shape):
        raise AttentionError(
            "Several weights of an example must be given where the examples are the first axis of an attention. Received: "
            f"weights of shape {tuple(heads.shape)} for {tuple(transposed.shape)}. Repeat the inputs in their place."
        )
    shape = tuple(output.shape)
    indices = ops.reshape(ops.arange(int(np.prod(shape)), dtype="int32"), shape)
    indices = ops.reshape(to_heads(indices), (-1, 1))
    flat = ops.scatter_update(ops.reshape(output, (-1,)), indices, ops.cast(ops.reshape(heads, (-1,)), output.dtype))
    return ops.reshape(flat, shape)
