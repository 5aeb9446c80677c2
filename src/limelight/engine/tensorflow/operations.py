"""Observe the operations of TensorFlow that run or become part of a graph in a thread, by whichever name a model calls them."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import tensorflow as tf

from limelight.engine import tensor_operation as axes
from limelight.engine.tensor_operation import OperationObserver, TensorOperation


@contextlib.contextmanager
def observe(observer: OperationObserver) -> Iterator[None]:
    """Tell an observer about each operation inside. Its softmaxes are those of `softmax_functions`."""
    try:
        # What TensorFlow's own debugger uses; the public `tf.debugging` only writes files.
        from tensorflow.python.framework import op_callbacks
    except ImportError:
        yield
        return

    def callback(kind: Any, inputs: Any, attrs: Any, outputs: Any, op_name: Any = None, graph: Any = None) -> Any:
        if not observer.is_ignored() and outputs and isinstance(outputs[0], tf.Tensor):
            name = kind.decode() if isinstance(kind, bytes) else kind
            if name == "Softmax":
                output = observer.on_softmax(outputs[0], -1)
            else:
                output = observer.on_operation(_describe(name, inputs, attrs, outputs[0]))
            outputs = [output, *outputs[1:]] if output is not outputs[0] else outputs
        return outputs

    op_callbacks.add_op_callback(callback)
    try:
        yield
    finally:
        op_callbacks.remove_op_callback(callback)


def softmax_functions() -> list[tuple[Any, str, Callable[..., Any]]]:
    """Return the function that each softmax of TensorFlow calls, and how it receives the axis."""
    try:
        from tensorflow.python.ops import gen_nn_ops, nn_ops

        vars(nn_ops)["_wrap_2d_function"]
    except (ImportError, KeyError):
        return [(tf.nn, "softmax", lambda logits, axis=-1, name=None: axis)]

    def get_axis(inputs: Any, compute_op: Any, dim: Any = -1, name: Any = None) -> Any:
        if compute_op is not gen_nn_ops.softmax or inputs.shape.rank is None:
            return None
        return -1 if dim is None else tf.get_static_value(dim) if tf.is_tensor(dim) else dim

    return [(nn_ops, "_wrap_2d_function", get_axis)]


def _describe(name: str, inputs: Any, attrs: Any, output: Any) -> TensorOperation:
    """Describe an operation that has run."""
    tensors = tuple(inputs)
    plain = TensorOperation(name.lower(), tensors, output)
    if any(tensor.shape.rank is None for tensor in (*tensors, output) if hasattr(tensor, "shape")):
        return plain
    try:
        described = _describe_axes(name, tensors, _Attributes(attrs), output)
    except (IndexError, KeyError, TypeError, ValueError, AttributeError):
        described = None
    return (
        plain
        if described is None
        else plain._replace(input_axes=described[0], output_axes=described[1], **described[2])
    )


class _Attributes:
    """The attributes of an operation: pairs, of plain values in eager execution and of protocol buffers in a graph."""

    def __init__(self, attrs: Any) -> None:
        self.values = dict(zip(attrs[::2], attrs[1::2], strict=True))

    def get(self, name: str, field: str, default: Any) -> Any:
        value = self.values.get(name, default)
        value = getattr(value, field) if hasattr(value, "WhichOneof") else value
        return value.decode() if isinstance(value, bytes) else value


def _describe_axes(name: str, tensors: tuple, attrs: _Attributes, output: Any) -> Any:
    """Return the axes of inputs and output, and further fields; None for an elementwise or unknown operation."""
    if name in ("MatMul", "BatchMatMul", "BatchMatMulV2", "BatchMatMulV3"):
        flags = ("transpose_a", "transpose_b") if name == "MatMul" else ("adj_x", "adj_y")
        transposed = [bool(attrs.get(flag, "b", False)) for flag in flags]
        shapes = [
            (*shape[:-2], shape[-1], shape[-2]) if is_transposed else shape
            for shape, is_transposed in zip((_shape(tensor) for tensor in tensors), transposed, strict=False)
        ]
        inputs, result = axes.matmul_axes(*shapes)
        inputs = tuple(
            (*labels[:-2], labels[-1], labels[-2]) if is_transposed else labels
            for labels, is_transposed in zip(inputs, transposed, strict=True)
        )
        return inputs, result, {}
    if name == "Einsum":
        described = axes.einsum_axes(attrs.get("equation", "s", ""), [tensor.shape.rank for tensor in tensors])
        return None if described is None else (*described, {})
    if name == "Split":  # its first input is the axis
        rank = tensors[1].shape.rank
        return ((), axes.label_axes(rank)), axes.label_axes(rank), _first_piece(rank)
    x, rank = tensors[0], tensors[0].shape.rank
    labels = axes.label_axes(rank)
    others = ((),) * (len(tensors) - 1)
    if name == "LogSoftmax":
        return (labels,), axes.reduce_axes(rank, [rank - 1], True), {}
    if name in ("Sum", "Mean"):
        reduced = tf.get_static_value(tensors[1])
        reduced = [int(axis) for axis in reduced.reshape(-1)]
        is_kept = output.shape.rank == rank
        return (labels, *others), axes.reduce_axes(rank, reduced, is_kept), {}
    if name == "Transpose":
        return (labels, *others), tuple((int(axis),) for axis in tf.get_static_value(tensors[1])), {}
    if name in ("Reshape", "ExpandDims", "Squeeze"):
        return (labels, *others), axes.reshape_axes(_shape(x), _shape(output)), {}
    if name in ("BroadcastTo", "Tile"):
        offset = output.shape.rank - rank
        same = [axis >= offset for axis in range(output.shape.rank)]
        return (labels, *others), tuple((axis - offset,) if is_same else () for axis, is_same in enumerate(same)), {}
    if name == "SplitV":
        return (labels, *others), labels, _first_piece(rank)
    if name == "Slice":
        starts = [int(start) for start in tf.get_static_value(tensors[1])]
        return (labels, *others), labels, {"starts": dict(enumerate(starts))}
    if name == "StridedSlice":
        return _strided_slice(x, tensors, attrs, labels)
    return None


def _first_piece(rank: int) -> dict[str, Any]:
    return {"starts": dict.fromkeys(range(rank), 0)}


def _strided_slice(x: Any, tensors: tuple, attrs: _Attributes, labels: Any) -> Any:
    begin, strides = tf.get_static_value(tensors[1]), tf.get_static_value(tensors[3])
    masks = {
        name: int(attrs.get(f"{name}_mask", "i", 0)) for name in ("begin", "end", "ellipsis", "new_axis", "shrink_axis")
    }
    num_new = sum(masks["new_axis"] >> index & 1 for index in range(len(begin)))
    num_ellipsis = 1 if masks["ellipsis"] else 0
    missing = x.shape.rank - (len(begin) - num_new - num_ellipsis)
    result: list[tuple[int, ...]] = []
    starts, axis = {}, 0
    for index in range(len(begin)):
        if masks["ellipsis"] >> index & 1:
            result.extend((axis + offset,) for offset in range(missing))
            axis += missing
        elif masks["new_axis"] >> index & 1:
            result.append(())
        elif masks["shrink_axis"] >> index & 1:
            axis += 1
        else:
            if strides[index] != 1:
                return None
            start = 0 if masks["begin"] >> index & 1 else int(begin[index])
            starts[axis] = start if start >= 0 else start + (x.shape[axis] or 0)
            result.append((axis,))
            axis += 1
    result.extend((rest,) for rest in range(axis, x.shape.rank))
    return (labels, (), (), ()), tuple(result), {"starts": starts}


def _shape(tensor: Any) -> tuple[int | None, ...]:
    return tuple(tensor.shape.as_list())
