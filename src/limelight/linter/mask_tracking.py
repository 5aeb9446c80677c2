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
ATTENTION_LAYERS = (
    *LIMELIGHT_LAYERS,
    keras.layers.MultiHeadAttention,
    keras.layers.GroupQueryAttention,
    keras.layers.Attention,
    keras.layers.AdditiveAttention,
)


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
        arguments: the tensors whose padding is known.
        float_masks: masks that are not bool, as the name of the argument and the values.
    """

    layer: Any
    arguments: tuple[Argument, ...] = ()
    float_masks: tuple[tuple[str, np.ndarray], ...] = ()


class MaskTracker(Recorder):
    """A recorder that also follows padding through the model.

    Args:
        model: the model.
        batch: the tensors that it will be called with.
    """

    def __init__(self, model: Any, batch: Any) -> None:
        super().__init__(model)
        self.calls: dict[str, list[LayerCall]] = {}
        self._tensors: dict[int, Any] = {}  # keeps the ids valid
        self._paddings: dict[int, Padding] = {}
        self._running: list[tuple[Any, dict[int, Any]]] = []
        self._current_calls: dict[int, LayerCall] = {}
        for tensor in keras.tree.flatten(batch):
            is_real = _guess_padding(tensor)
            if is_real is not None:
                self._set_padding(tensor, Padding(is_real, is_declared=False))

    def record(self, layer: Any, observe: Callable[[], Any], pending: Any = None) -> Any:
        """Record an attention, and the call of the layer that it belongs to."""
        if not self.is_muted:
            self.calls.setdefault(self.path(layer), []).append(self._current_calls.get(id(layer), LayerCall(layer)))
        return super().record(layer, observe, pending)

    def on_enter(self, operation: Any, args: tuple, kwargs: dict[str, Any]) -> None:
        """Remember the masks that the arguments of an operation carry, before it may remove them."""
        carried = {}
        for tensor in _flatten_tensors((args, kwargs)):
            mask = _keras_private.get_keras_mask(tensor)
            if mask is not None:
                carried[id(tensor)] = mask
                self._declare_padding(tensor, mask)
        self._running.append((operation, carried))
        if isinstance(operation, keras.Layer):
            self._current_calls[id(operation)] = self._bind_call(operation, args, kwargs, carried)

    def on_exit(self, operation: Any, args: tuple, kwargs: dict[str, Any], outputs: Any) -> None:
        """Find the masks that the arguments of an operation have lost, and pass their padding on to its outputs."""
        _, carried = self._running.pop()
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
                self._inherit_padding(output, inputs, carried, operation_id)

    def find_argument(self, call: LayerCall, length: int, names: tuple[str, ...]) -> Argument | None:
        """Return the queries or keys of a call, if their padding is known.

        A layer that attends inside custom code receives tensors that nobody saw being made. Then the padding of the other
        tensors of that length counts, if all agree.

        Args:
            call: the call.
            length: T or S.
            names: the names that the argument may have.
        """
        candidates = [argument for argument in call.arguments if argument.padding.is_real.shape[1:] == (length,)]
        named = [argument for name in names for argument in candidates if argument.name == name]
        if named or candidates:
            return (named or candidates)[0]
        paddings = [padding for padding in self._paddings.values() if padding.is_real.shape[1:] == (length,)]
        paddings.sort(key=lambda padding: not padding.is_declared)
        if call.arguments or not paddings or any((each.is_real != paddings[0].is_real).any() for each in paddings):
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
        arguments, float_masks = [], []
        for name, value in bound.items():
            for index, tensor in enumerate(_flatten_tensors(value)):
                if "mask" in name:
                    self._paddings.pop(id(tensor), None)  # zeros of a mask are no padding
                    values = masks.concrete_value(tensor) if "float" in str(tensor.dtype) else None
                    float_masks += [] if values is None else [(name, values)]
                    continue
                own_name = ("query", "value", "key")[index] if isinstance(value, list) and index < 3 else name
                if id(tensor) in self._paddings:
                    is_masked = id(tensor) in carried or _has_mask_argument(bound, own_name)
                    arguments.append(Argument(own_name, self._paddings[id(tensor)], is_masked))
        return LayerCall(layer, tuple(arguments), tuple(float_masks))

    def _inherit_padding(
        self, output: Any, inputs: list[tuple[Any, Padding]], carried: dict[int, Any], operation_id: tuple[str, str]
    ) -> None:
        """Give an output without a mask the padding of the first input of the same (B, T)."""
        for tensor, padding in inputs:
            if len(output.shape) > 1 and tuple(output.shape[:2]) == padding.is_real.shape:
                dropped_by = operation_id if id(tensor) in carried else padding.dropped_by
                self._set_padding(output, dataclasses.replace(padding, dropped_by=dropped_by))
                return

    def _declare_padding(self, tensor: Any, mask: Any) -> None:
        values = masks.concrete_value(mask)
        if values is not None and values.ndim == 2:
            self._set_padding(tensor, Padding(values.astype(bool), is_declared=True))

    def _set_padding(self, tensor: Any, padding: Padding) -> None:
        self._tensors[id(tensor)] = tensor
        self._paddings[id(tensor)] = padding


def _has_mask_argument(bound: dict[str, Any], name: str) -> bool:
    """Return True if the arguments of a call include a mask for the one with this name."""
    mask_names = ("query_mask",) if name == "query" else ("value_mask", "key_mask")
    given = [bound.get(mask_name) for mask_name in (*mask_names, "attention_mask")]
    mask = bound.get("mask")
    given += (mask[:1] if name == "query" else mask[1:]) if isinstance(mask, list) else [mask]
    return any(each is not None for each in given)


def _flatten_tensors(structure: Any) -> list[Any]:
    return [leaf for leaf in keras.tree.flatten(structure) if ops.is_tensor(leaf)]


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
