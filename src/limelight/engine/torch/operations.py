"""Observe the functions of PyTorch that run in a thread, by whichever name a model calls them."""

import contextlib
import functools
from collections.abc import Callable, Iterator
from types import FunctionType
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from limelight.engine import tensor_operation as axes
from limelight.engine.tensor_operation import OperationObserver, TensorOperation


class ObserverMode(TorchFunctionMode):
    """Tells an observer about each function of PyTorch that runs inside."""

    def __init__(self, observer: OperationObserver) -> None:
        super().__init__()
        self.observer = observer
        self.is_running = False
        self.num_heads = 1  # that are folded into the batch by what runs now
        self.entered: Any = None  # the composed function that runs now

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None) -> Any:
        kwargs = kwargs or {}
        if self.is_running or self.observer.is_ignored():
            return func(*args, **kwargs)
        is_composed = getattr(func, "__module__", "") == "torch.nn.functional" and isinstance(func, FunctionType)
        # Pooling passes itself to this mode again from a function inside.
        if is_composed and func is not self.entered:
            # It consists of others, and would pass itself to this mode again.
            num_heads, entered, self.entered = self.num_heads, self.entered, func
            if func is torch.nn.functional.multi_head_attention_forward:
                self.num_heads = kwargs.get("num_heads", args[4] if len(args) > 4 else 1)
            try:
                with self:
                    return _without_dispatch(func)(*args, **kwargs)
            finally:
                self.num_heads, self.entered = num_heads, entered
        result = self.run(func, args, kwargs)
        name = getattr(func, "__name__", "")
        if name == "__get__":  # of an attribute such as `mT`
            name = getattr(getattr(func, "__self__", None), "__name__", name)
        if func is torch.nn.functional.scaled_dot_product_attention:
            return self.observer.on_attention(_attention_arguments(*args, **kwargs), result)
        return self.observe(name, args, kwargs, result)

    def run(self, func: Any, args: tuple, kwargs: dict[str, Any]) -> Any:
        """Run a function whose parts are not to be observed."""
        is_running, self.is_running = self.is_running, True
        try:
            return func(*args, **kwargs)
        finally:
            self.is_running = is_running

    def observe(self, name: str, args: tuple, kwargs: dict[str, Any], result: Any) -> Any:
        """Tell the observer about an operation, and return what the caller receives."""
        name = name.partition(".")[0]
        if name in ("softmax", "special_softmax", "_softmax", "_safe_softmax"):
            rest = args[1:]
            axis = rest[0] if rest else kwargs.get("dim", -1)
            return self.observer.on_softmax(result, axis, heads_in_batch=self.num_heads)
        output = result[0] if isinstance(result, tuple) and result else result
        if not isinstance(output, torch.Tensor):
            return result
        observed = self.observer.on_operation(_describe(name, args, kwargs, output))
        return observed if output is result else result


class DispatchMode(TorchDispatchMode):
    """Tells an observer about operations that no function of PyTorch has called: those of TorchScript."""

    def __init__(self, functions: ObserverMode) -> None:
        super().__init__()
        self.functions = functions

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None) -> Any:
        kwargs = kwargs or {}
        observer = self.functions.observer
        if self.functions.is_running or observer.is_ignored():
            return func(*args, **kwargs)
        result = self.functions.run(func, args, kwargs)
        name = func.overloadpacket.__name__
        if name == "_scaled_dot_product_flash_attention_for_cpu":
            names = ("query", "key", "value", "dropout_p", "is_causal")
            arguments = _attention_arguments(**dict(zip(names, args, strict=False)), **kwargs)
            return (observer.on_attention(arguments, result[0]), *result[1:])
        if name.startswith("_scaled_dot_product"):
            observer.on_hidden_softmax()
            return result
        return self.functions.observe(name, args, kwargs, result)


@contextlib.contextmanager
def observe(observer: OperationObserver) -> Iterator[None]:
    """Tell an observer about each operation inside."""
    functions = ObserverMode(observer)
    with functions, DispatchMode(functions):
        yield


@functools.cache
def _without_dispatch(function: Any) -> Callable[..., Any]:
    """Return a copy of one of PyTorch's functions that does not look for a mode."""
    checks = ("has_torch_function", "has_torch_function_unary", "has_torch_function_variadic")
    names = {**function.__globals__, **dict.fromkeys(checks, lambda *_: False)}
    copy = FunctionType(function.__code__, names, function.__name__, function.__defaults__, function.__closure__)
    copy.__kwdefaults__ = function.__kwdefaults__
    return copy


def _attention_arguments(
    query: Any,
    key: Any,
    value: Any,
    attn_mask: Any = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> dict[str, Any]:
    is_bool = attn_mask is not None and attn_mask.dtype == torch.bool
    return {
        "query": query,
        "key": key,
        "value": value,
        "scale": scale,
        "array": attn_mask if is_bool else None,
        "bias": None if is_bool else attn_mask,
        "right": 0 if is_causal else None,
    }


def _describe(name: str, args: tuple, kwargs: dict[str, Any], output: torch.Tensor) -> TensorOperation:
    """Describe an operation that has run."""
    tensors = _tensors((*args, *kwargs.values()))
    plain = TensorOperation(name, tensors, output)
    try:
        described = _describe_axes(name, args, kwargs, tensors, output)
    except (IndexError, KeyError, TypeError, ValueError):
        described = None
    return (
        plain
        if described is None
        else plain._replace(input_axes=described[0], output_axes=described[1], **described[2])
    )


def _describe_axes(name: str, args: tuple, kwargs: dict[str, Any], tensors: tuple, output: Any) -> Any:
    """Return the axes of inputs and output, and further fields; None for an elementwise or unknown operation."""
    if name in ("matmul", "__matmul__", "bmm", "mm", "mv", "dot"):
        return *axes.matmul_axes(tensors[0].shape, tensors[1].shape), {}
    if name == "__rmatmul__":
        inputs, result = axes.matmul_axes(tensors[1].shape, tensors[0].shape)
        return inputs[::-1], result, {}
    if name == "einsum" and isinstance(args[0], str):
        described = axes.einsum_axes(args[0], [tensor.ndim for tensor in tensors])
        return None if described is None else (*described, {})
    x, rank = tensors[0], tensors[0].ndim
    labels = axes.label_axes(rank)
    if name == "log_softmax":
        dim = kwargs.get("dim", args[1] if len(args) > 1 else -1)
        return (labels,), axes.reduce_axes(rank, [dim], True), {}
    if name in ("sum", "mean", "nansum", "logsumexp"):
        dim = kwargs.get("dim", kwargs.get("axis", args[1] if len(args) > 1 else None))
        dim = range(rank) if dim is None else [dim] if isinstance(dim, int) else dim
        keepdims = kwargs.get("keepdim", kwargs.get("keepdims", args[2] if len(args) > 2 else False))
        return (labels,), axes.reduce_axes(rank, dim, bool(keepdims)), {}
    if name in ("permute", "transpose", "swapaxes", "swapdims", "movedim", "moveaxis", "t", "T", "mT"):
        return (labels,), _permuted(name, args, kwargs, x), {}
    if name in (
        "reshape",
        "view",
        "_unsafe_view",
        "flatten",
        "unflatten",
        "unsqueeze",
        "squeeze",
        "expand",
        "contiguous",
    ):
        return (labels,), axes.reshape_axes(x.shape, output.shape) if name != "expand" else _expanded(x, output), {}
    if name == "__getitem__":
        return _sliced(x, args[1], labels)
    if name == "narrow":
        return (labels,), labels, {"starts": {args[1] % rank: int(args[2])}} if len(args) > 2 else {}
    if name in ("split", "chunk", "tensor_split"):
        # The first piece.
        return (labels,), labels, {"starts": dict.fromkeys(range(rank), 0)}
    return None


def _permuted(name: str, args: tuple, kwargs: dict[str, Any], x: Any) -> Any:
    """Return the axes of a transposed tensor: those of one whose axes all have another length."""
    index = torch.empty(tuple(range(x.ndim)), device="meta")
    attribute = getattr(index, name)
    rest = {key: value for key, value in kwargs.items() if key != "input"}
    result = attribute if isinstance(attribute, torch.Tensor) else attribute(*args[1:], **rest)
    return tuple((size,) for size in result.shape)


def _expanded(x: Any, output: Any) -> Any:
    offset = output.ndim - x.ndim
    return tuple((axis - offset,) if axis >= offset else () for axis in range(output.ndim))


def _sliced(x: Any, index: Any, labels: Any) -> Any:
    """Return the axes of `x[index]` of ints, slices, None and an ellipsis."""
    index = list(index) if isinstance(index, tuple) else [index]
    if any(part is not None and part is not Ellipsis and not isinstance(part, (int, slice)) for part in index):
        return None
    position = index.index(Ellipsis) if Ellipsis in index else len(index)
    num_axes = sum(part is not None and part is not Ellipsis for part in index)
    index[position : position + 1] = [slice(None)] * (x.ndim - num_axes)
    result: list[tuple[int, ...]] = []
    starts, axis = {}, 0
    for part in index:
        if part is None:
            result.append(())
            continue
        if isinstance(part, slice):
            start, _, step = part.indices(x.shape[axis])
            if step != 1:
                return None
            result.append((axis,))
            starts[axis] = start
        axis += 1
    return (labels,), tuple(result), {"starts": starts}


def _tensors(structure: Any) -> tuple[Any, ...]:
    """Return the tensors in arguments, one level of lists included."""
    found: list[Any] = []
    for leaf in structure:
        parts = leaf if isinstance(leaf, (list, tuple)) else (leaf,)
        found.extend(part for part in parts if isinstance(part, torch.Tensor))
    return tuple(found)
