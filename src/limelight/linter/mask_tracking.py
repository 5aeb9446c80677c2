"""Follow padding through a model: where it is, which tensors carry a mask of it, and which layer dropped the mask."""

import dataclasses
import inspect
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

from limelight import _keras_private, masks
from limelight.inspection.recorder import Recorder
from limelight.layers import Attention, AttentionPooling, MultiHeadAttention, SelfAttention

LIMELIGHT_LAYERS = (Attention, AttentionPooling, MultiHeadAttention, SelfAttention)
KERAS_LAYERS = (
    keras.layers.MultiHeadAttention,
    keras.layers.GroupQueryAttention,
    keras.layers.Attention,
    keras.layers.AdditiveAttention,
)
ATTENTION_LAYERS = (*LIMELIGHT_LAYERS, *KERAS_LAYERS)
# Models that run nothing but layers and operations.
_GRAPHS = (_keras_private.Functional, keras.Sequential)


@dataclasses.dataclass(frozen=True, eq=False)
class Padding:
    """The padding of a tensor (B, T, ...).

    Args:
        is_real: bool (B, T) as numpy, False where a position is padding.
        is_declared: True if a mask said so; else the values look like it.
        dropped_by: the path and the class of the layer that dropped the mask, or None.
    """

    is_real: np.ndarray
    is_declared: bool
    dropped_by: tuple[str, str] | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class Argument:
    """A tensor that an attention layer received: its name, its padding, and True if the layer has a mask of it."""

    name: str
    padding: Padding
    is_masked: bool


@dataclasses.dataclass(frozen=True, eq=False)
class LayerCall:
    """One call of a layer that attends.

    Args:
        layer: the layer.
        arguments: the tensors that have padding.
        unpadded: the names and lengths of the tensors (B, T, ...) that are known to have none.
        float_masks: masks that are not bool, by the name of the argument.
        read_as_bool: the names of those of which the layer was seen to read every number except 0 as True.
    """

    layer: Any
    arguments: tuple[Argument, ...] = ()
    unpadded: tuple[tuple[str, int], ...] = ()
    float_masks: tuple[tuple[str, Any], ...] = ()
    read_as_bool: set[str] = dataclasses.field(default_factory=set)


class MaskTracker(Recorder):
    """A recorder that also follows padding through the model.

    Args:
        model: the model.
        batch: the tensors that it will be called with.
    """

    def __init__(self, model: Any, batch: Any) -> None:
        super().__init__(model)
        self.calls: dict[str, list[LayerCall]] = {}
        self.softmaxes_of_one: list[tuple[str, str]] = []
        self.float16_softmaxes: set[str] = set()
        self._tensors: dict[int, Any] = {}  # all that were seen, which keeps their ids valid
        self._paddings: dict[int, Padding] = {}
        self._unpadded: set[int] = set()  # those that were computed from nothing that has padding
        self._running: list[tuple[Any, dict[int, Any]]] = []
        self._current_calls: dict[int, LayerCall] = {}
        self._inputs: list[tuple[Any, np.ndarray]] = []
        for tensor in keras.tree.flatten(batch):
            is_real = _guess_padding(tensor)
            if is_real is not None:
                self._set_padding(tensor, Padding(is_real, is_declared=False))
                self._inputs.append((tensor, ops.convert_to_numpy(tensor)))

    def record(self, layer: Any, observe: Callable[[], Any], pending: Any = None) -> Any:
        """Record an attention, and the call of the layer that it belongs to."""
        if not self.is_muted:
            if pending is not None and all(pending.result.shape[axis] == 1 for axis in pending.keys):
                self.softmaxes_of_one.append((self.path(layer), type(layer).__name__))
            if pending is not None and keras.backend.standardize_dtype(pending.result.dtype) == "float16":
                self.float16_softmaxes.add(self.path(layer))
            self.calls.setdefault(self.path(layer), []).append(self._current_calls.get(id(layer), LayerCall(layer)))
        return super().record(layer, observe, pending)

    def on_enter(self, operation: Any, args: tuple, kwargs: dict[str, Any]) -> None:
        """Remember the masks that the arguments of an operation carry, before it may remove them."""
        super().on_enter(operation, args, kwargs)
        if self.is_muted:
            return
        carried = {}
        # What a graph computes is seen: a tensor that was not is an input of it. Custom code computes unseen.
        is_in_graph = not self._running or isinstance(self._running[-1][0], _GRAPHS)
        for tensor in _flatten_tensors((args, kwargs)):
            self._recognize_input(tensor)
            if id(tensor) not in self._tensors and is_in_graph:
                self._unpadded.add(id(tensor))
            self._tensors[id(tensor)] = tensor
            mask = _keras_private.get_keras_mask(tensor)
            if mask is not None:
                carried[id(tensor)] = mask
                self._declare_padding(tensor, mask)
        self._running.append((operation, carried))
        if isinstance(operation, keras.Layer):
            self._current_calls[id(operation)] = self._bind_call(operation, args, kwargs, carried)

    def on_exit(self, operation: Any, args: tuple, kwargs: dict[str, Any], outputs: Any) -> None:
        """Find the masks that the arguments of an operation have lost, and pass their padding on to its outputs."""
        if self.is_muted:
            return
        _, carried = self._running.pop()
        sources = {id(tensor) for tensor in _get_sources(operation, args, kwargs)}
        is_unpadded = sources <= self._unpadded
        for output in _flatten_tensors(outputs):
            # Of what an operation inside another returns, the outer one knows more.
            self._unpadded.discard(id(output))
            if is_unpadded and id(output) not in self._paddings:
                self._unpadded.add(id(output))
            self._tensors[id(output)] = output
        self._check_float_masks(operation, args, kwargs)
        if any(isinstance(outer, ATTENTION_LAYERS) for outer, _ in self._running):
            return  # an attention layer, not the projections inside it, is responsible for masks
        operation_id = (self.path(), type(operation).__name__)
        inputs = [
            (tensor, self._paddings[id(tensor)])
            for tensor in _flatten_tensors((args, kwargs))
            if id(tensor) in self._paddings
        ]
        inputs.sort(key=lambda pair: not pair[1].is_declared)
        for tensor, padding in inputs:
            if id(tensor) in carried and _keras_private.get_keras_mask(tensor) is None:
                self._set_padding(tensor, dataclasses.replace(padding, dropped_by=operation_id))
        for output in _flatten_tensors(outputs):
            mask = _keras_private.get_keras_mask(output)
            if mask is not None:
                self._declare_padding(output, mask)
            elif id(output) not in self._paddings:
                padded = [(tensor, padding) for tensor, padding in inputs if id(tensor) in sources]
                self._inherit_padding(output, padded, carried, operation_id)
        changes_length = inputs and not any(id(output) in self._paddings for output in _flatten_tensors(outputs))
        if changes_length and not isinstance(operation, (keras.Model, *ATTENTION_LAYERS)):
            self._project_padding(operation, args, kwargs, outputs, carried)

    def find_argument(self, call: LayerCall, length: int, names: tuple[str, ...]) -> Argument | None:
        """Return the queries or keys of a call, if they have padding.

        A layer with other names for its arguments may take any of that length for its keys: their padding counts if all have the
        same. A layer that attends inside custom code receives tensors that nobody saw being made. Then the padding of the other
        tensors of that length counts, if all agree.

        Args:
            call: the call.
            length: T or S.
            names: the names that the argument may have.
        """
        candidates = [argument for argument in call.arguments if argument.padding.is_real.shape[1:] == (length,)]
        named = [argument for name in names for argument in candidates if argument.name == name]
        unpadded = {name for name, size in call.unpadded if size == length}
        if named:
            return named[0]
        if unpadded.intersection(names):
            return None
        if candidates:
            return candidates[0] if not unpadded and _agree([each.padding for each in candidates]) else None
        paddings = [padding for padding in self._paddings.values() if padding.is_real.shape[1:] == (length,)]
        paddings.sort(key=lambda padding: not padding.is_declared)
        if call.arguments or unpadded or not paddings or not _agree(paddings):
            return None
        return Argument("", paddings[0], is_masked=False)

    def find_real_queries(self, call: LayerCall, weights: np.ndarray) -> np.ndarray:
        """Return which queries of weights (B, ..., N, T, S) are no padding: bool (B, ..., T)."""
        shape = weights.shape[:-3] + weights.shape[-2:-1]
        queries = self.find_argument(call, weights.shape[-2], ("query", "inputs"))
        return (
            np.ones(shape, bool)
            if queries is None or queries.padding.is_real.shape != shape
            else queries.padding.is_real
        )

    def _bind_call(self, layer: Any, args: tuple, kwargs: dict[str, Any], carried: dict[int, Any]) -> LayerCall:
        """Bind the tensors that a layer receives to the names of its arguments."""
        try:
            bound = dict(inspect.signature(layer.call).bind(*args, **kwargs).arguments)
        except TypeError:
            return LayerCall(layer)
        arguments, unpadded, float_masks = [], [], []
        # A mask that was computed from something with padding may tell that of any argument.
        has_padding_mask = any(id(mask) not in self._unpadded for mask in _get_key_masks(bound))
        for name, value in bound.items():
            for index, tensor in enumerate(_flatten_tensors(value)):
                if "mask" in name:
                    self._paddings.pop(id(tensor), None)  # zeros of a mask are no padding
                    if "float" in str(tensor.dtype) and masks.concrete_value(tensor) is not None:
                        float_masks.append((name, tensor))
                    continue
                own_name = ("query", "value", "key")[index] if isinstance(value, list) and index < 3 else name
                if id(tensor) in self._paddings:
                    is_masked = id(tensor) in carried or _has_mask_argument(bound, own_name)
                    arguments.append(Argument(own_name, self._paddings[id(tensor)], is_masked))
                elif id(tensor) in self._unpadded and len(tensor.shape) > 2 and not has_padding_mask:
                    unpadded.append((own_name, int(tensor.shape[1])))
        return LayerCall(layer, tuple(arguments), tuple(unpadded), tuple(float_masks))

    def _inherit_padding(
        self, output: Any, inputs: list[tuple[Any, Padding]], carried: dict[int, Any], operation_id: tuple[str, str]
    ) -> None:
        """Give an output without a mask the padding of the first input of the same (B, T)."""
        for tensor, padding in inputs:
            if len(output.shape) > 1 and tuple(output.shape[:2]) == padding.is_real.shape:
                dropped_by = operation_id if id(tensor) in carried else padding.dropped_by
                self._set_padding(output, dataclasses.replace(padding, dropped_by=dropped_by))
                return

    def _project_padding(
        self, operation: Any, args: tuple, kwargs: dict[str, Any], outputs: Any, carried: dict[int, Any]
    ) -> None:
        """Find the padding of an output of another length than the input's, as a convolution, a crop or pooling has.

        The operation runs again with other numbers: a position is padding if it depends on padding and on nothing else.
        """
        padded = [tensor for tensor in _flatten_tensors((args, kwargs)) if id(tensor) in self._paddings]
        tensors = _flatten_tensors(outputs)
        if len(padded) != 1 or len(tensors) != 1 or len(tensors[0].shape) < 2:
            return
        tensor, output = padded[0], tensors[0]
        padding = self._paddings[id(tensor)]
        is_sequence = len(output.shape) > 2 or len(tensor.shape) == 2
        if not is_sequence or output.shape[0] != len(padding.is_real) or padding.is_real.all():
            return

        def find_changes(where: np.ndarray) -> np.ndarray | None:
            changed = np.zeros(tuple(output.shape[:2]), bool)
            for values in _perturb(tensor, where):
                result = self._run_again(operation, args, kwargs, {id(tensor): values})
                if result is None or tuple(result.shape) != tuple(output.shape):
                    return None
                difference = ops.convert_to_numpy(ops.not_equal(result, output))
                changed |= difference.reshape(*changed.shape, -1).any(axis=-1)
            return changed

        by_real, by_padding = find_changes(padding.is_real), find_changes(~padding.is_real)
        if by_real is None or by_padding is None or not (by_padding & ~by_real).any():
            return
        dropped_by = (self.path(), type(operation).__name__) if id(tensor) in carried else padding.dropped_by
        is_real = by_real | ~by_padding
        self._set_padding(output, Padding(is_real, padding.is_declared, dropped_by))

    def _check_float_masks(self, operation: Any, args: tuple, kwargs: dict[str, Any]) -> None:
        """Run a layer again with other masks, to see which float masks it reads as bool: every number except 0 as True."""
        call = self._current_calls.get(id(operation))
        if call is None or isinstance(operation, LIMELIGHT_LAYERS) or type(operation) in KERAS_LAYERS:
            return
        for name, tensor in call.float_masks:
            is_nonzero = ops.cast(ops.not_equal(tensor, 0), tensor.dtype)
            results = [
                self._run_again(operation, args, kwargs, {id(tensor): mask})
                for mask in (tensor, is_nonzero, 1 - is_nonzero)
            ]
            if any(result is None for result in results):
                continue
            before, equivalent, inverted = (ops.convert_to_numpy(ops.cast(result, "float32")) for result in results)
            if _are_close(before, equivalent) and not _are_close(before, inverted):
                call.read_as_bool.add(name)

    def _run_again(self, operation: Any, args: tuple, kwargs: dict[str, Any], replaced: dict[int, Any]) -> Any:
        """Return the first output of an operation with some tensors replaced, or None if it fails. Nothing is recorded.

        The arguments are copies without masks, because a layer may change the masks that its arguments carry.
        """

        def copy(leaf: Any) -> Any:
            if not ops.is_tensor(leaf):
                return leaf
            return replaced[id(leaf)] if id(leaf) in replaced else ops.copy(leaf)

        try:
            with self.muted():
                copied_args, copied_kwargs = keras.tree.map_structure(copy, (args, kwargs))
                return _flatten_tensors(operation(*copied_args, **copied_kwargs))[0]
        except Exception:
            return None  # a layer may refuse other numbers; then nothing is said of it

    def _recognize_input(self, tensor: Any) -> None:
        """Give an input of the model that was cast to another dtype the padding of the original."""
        if id(tensor) in self._paddings or len(tensor.shape) not in (2, 3) or "bool" in str(tensor.dtype):
            return
        for original, values in self._inputs:
            if tuple(tensor.shape) == values.shape and id(original) in self._paddings:
                own = masks.concrete_value(tensor)
                if own is not None and np.array_equal(own, values.astype(own.dtype)):
                    self._set_padding(tensor, self._paddings[id(original)])
                    return

    def _declare_padding(self, tensor: Any, mask: Any) -> None:
        values = masks.concrete_value(mask)
        if values is not None and values.ndim == 2:
            self._set_padding(tensor, Padding(values.astype(bool), is_declared=True))

    def _set_padding(self, tensor: Any, padding: Padding) -> None:
        self._unpadded.discard(id(tensor))
        self._tensors[id(tensor)] = tensor
        self._paddings[id(tensor)] = padding


def _has_mask_argument(bound: dict[str, Any], name: str) -> bool:
    """Return True if the arguments of a call include a mask for the one with this name."""
    mask_names = ("query_mask",) if name == "query" else ("value_mask", "key_mask")
    given = [bound.get(mask_name) for mask_name in (*mask_names, "attention_mask")]
    mask = bound.get("mask")
    given += (mask[:1] if name == "query" else mask[1:]) if isinstance(mask, list) else [mask]
    return any(each is not None for each in given)


def _get_key_masks(bound: dict[str, Any]) -> list[Any]:
    """Return the masks among the arguments of a call, but for those of queries."""
    given = [value for name, value in bound.items() if "mask" in name and name != "query_mask"]
    return _flatten_tensors([value[1:] if isinstance(value, list) else value for value in given])


def _get_sources(operation: Any, args: tuple, kwargs: dict[str, Any]) -> list[Any]:
    """Return the tensors whose positions those of an output are: of attention the queries, else all."""
    tensors = _flatten_tensors((args, kwargs))
    return (
        _flatten_tensors((kwargs.get("query"), args))[:1] or tensors
        if isinstance(operation, ATTENTION_LAYERS)
        else tensors
    )


def _agree(paddings: list[Padding]) -> bool:
    """Return True if paddings are of the same positions."""
    return all(np.array_equal(padding.is_real, paddings[0].is_real) for padding in paddings)


def _flatten_tensors(structure: Any) -> list[Any]:
    return [leaf for leaf in keras.tree.flatten(structure) if ops.is_tensor(leaf)]


def _perturb(tensor: Any, where: np.ndarray) -> list[Any]:
    """Return copies of a tensor with other numbers at some positions (B, T): larger and smaller, or other ids of the batch."""
    values = ops.convert_to_numpy(ops.cast(tensor, "float32"))
    where = where.reshape(where.shape + (1,) * (values.ndim - 2))
    if "float" in str(tensor.dtype):
        step = 10 * np.abs(values).max(initial=0.0) + 1
        others = [values + step, values - step]
    else:
        smallest, largest = values[values > 0].min(initial=1.0), values.max(initial=1.0)
        others = [np.where(values == largest, smallest, largest)]
    return [ops.convert_to_tensor(np.where(where, other, values), dtype=tensor.dtype) for other in others]


def _are_close(first: np.ndarray, second: np.ndarray) -> bool:
    return first.shape == second.shape and np.allclose(first, second, rtol=1e-4, atol=1e-6)


def _guess_padding(tensor: Any) -> np.ndarray | None:
    """Return which positions (B, T) of an input are real if it looks padded: zeros at the end of some examples only."""
    values = masks.concrete_value(tensor)
    if values is None or values.ndim not in (2, 3) or values.dtype.kind not in "iuf":
        return None
    if (values.ndim == 2) == (values.dtype.kind == "f"):
        return None  # only ids (B, T) and features (B, T, D) are sequences
    zero = values == 0 if values.ndim == 2 else (values == 0).all(axis=-1)
    at_end = np.flip(np.logical_and.accumulate(np.flip(zero, 1), axis=1), 1)
    return ~at_end if at_end.any() and not at_end.all() and (zero == at_end).all() else None
