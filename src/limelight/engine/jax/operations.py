"""Observe the primitives of JAX that run in a thread, by whichever name a model calls them, and inside jitted functions."""

import contextlib
import functools
import inspect
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp

from limelight.engine import tensor_operation as axes
from limelight.engine.tensor_operation import OperationObserver, TensorOperation

try:
    # A trace is how `jit`, `grad` and `vmap` see primitives. There is no public way to see those that run eagerly.
    from jax._src import core as _private_core
    from jax._src.nn import functions as _private_functions
except ImportError:  # pragma: no cover
    _private_core = _private_functions = None
core: Any = _private_core
functions: Any = _private_functions
Trace: Any = getattr(core, "Trace", object)
_observed: Any = jax.make_user_context(False)


class ObserverTrace(Trace):
    """A trace that hands each primitive on to the trace around it and describes it to an observer."""

    def __init__(self, parent: Any, observer: OperationObserver) -> None:
        super().__init__()
        self.parent, self.observer = parent, observer
        self.requires_low = parent.requires_low

    def __getattr__(self, name: str) -> Any:
        return getattr(object.__getattribute__(self, "parent"), name)

    def stage_value(self, val: Any) -> Any:
        """Stage a value in the trace around this one."""
        return self.parent.stage_value(val)

    def process_primitive(self, primitive: Any, tracers: Any, params: Any, /) -> Any:
        """Run a primitive in the trace around this one, and describe it to the observer."""
        observer = self.observer
        inner = None if observer.is_ignored() else _inner_jaxpr(primitive.name, params)
        replayed = None
        if inner is not None and _may_have_softmax(inner):
            replayed = self._replay(inner, params["jaxpr"], tracers)
            if observer.replaces_outputs():
                return replayed
        with core.set_current_trace(self.parent):
            outputs = primitive.bind(*tracers, **params)
        if observer.is_ignored():
            return outputs
        flat = outputs if primitive.multiple_results else [outputs]
        # JAX processes a primitive in the eager trace.
        with core.set_current_trace(self):
            if replayed is not None:
                for replaced, output in zip(replayed, flat, strict=True):
                    _emit_alias(observer, replaced, output)
            elif inner is not None:
                _walk(observer, inner, tracers, flat)
            elif flat:
                if any(_has_softmax(each) for each in core.jaxprs_in_params(params)):
                    observer.on_hidden_softmax()
                output = observer.on_operation(_describe(primitive.name, tuple(tracers), flat[0], params))
                return outputs if primitive.multiple_results else output
        return outputs

    def _replay(self, jaxpr: Any, closed: Any, tracers: Any) -> list[Any]:
        """Compute a jitted function operation by operation, so that its softmaxes are seen."""
        values: dict[Any, Any] = dict(zip(jaxpr.constvars, getattr(closed, "consts", ()), strict=True))
        values.update(zip(jaxpr.invars, tracers, strict=True))

        def read(atom: Any) -> Any:
            return atom.val if hasattr(atom, "val") else values[atom]

        for equation in jaxpr.eqns:
            inputs = [read(atom) for atom in equation.invars]
            params = equation.primitive.get_bind_params(equation.params)
            functions, params = params if isinstance(params, tuple) else ((), params)
            with core.set_current_trace(self):
                outputs = equation.primitive.bind(*functions, *inputs, **params)
            values.update(
                zip(equation.outvars, outputs if equation.primitive.multiple_results else [outputs], strict=True)
            )
        return [read(atom) for atom in jaxpr.outvars]

    def process_call(self, primitive: Any, f: Any, tracers: Any, params: Any, /) -> Any:
        """Leave a call to the trace around this one."""
        with core.set_current_trace(self.parent):
            return self.parent.process_call(primitive, f, tracers, params)

    def process_custom_jvp_call(self, primitive: Any, fun: Any, jvp: Any, tracers: Any, /, **settings: Any) -> Any:
        """Leave a function with its own derivative to the trace around this one."""
        with core.set_current_trace(self.parent):
            return self.parent.process_custom_jvp_call(primitive, fun, jvp, tracers, **settings)

    def process_custom_vjp_call(
        self, primitive: Any, fun: Any, fwd: Any, bwd: Any, tracers: Any, /, **settings: Any
    ) -> Any:
        """Leave a function with its own gradient to the trace around this one."""
        with core.set_current_trace(self.parent):
            return self.parent.process_custom_vjp_call(primitive, fun, fwd, bwd, tracers, **settings)


@contextlib.contextmanager
def observe(observer: OperationObserver) -> Iterator[None]:
    """Tell an observer about each primitive inside, in the trace that is current."""
    if core is None:
        yield
        return
    parent = core.trace_ctx.trace
    while isinstance(parent, ObserverTrace):
        parent = parent.parent
    # Functions that are jitted run past all traces once they are compiled, unless they are called in another context.
    is_eager = type(parent).__name__ == "EvalTrace"
    with (
        core.set_current_trace(ObserverTrace(parent, observer)),
        _observed(True) if is_eager else contextlib.nullcontext(),
    ):
        yield


def unobserved() -> contextlib.AbstractContextManager[Any]:
    """Return a context without an observer, in the trace that is current otherwise."""
    if core is None or not isinstance(core.trace_ctx.trace, ObserverTrace):
        return contextlib.nullcontext()
    trace: Any = core.trace_ctx.trace
    return core.set_current_trace(trace.parent)


def softmax_functions() -> list[tuple[Any, str, Callable[..., Any]]]:
    """Return the functions that each softmax of JAX calls, and how these receive the axis."""
    names = ("_softmax", "_softmax_deprecated")
    if functions is None or not all(hasattr(functions, name) for name in names):
        return [(jax.nn, "softmax", lambda x, axis=-1, where=None: axis)]
    return [(functions, name, lambda x, axis=-1, where=None, initial=None: axis) for name in names]


def attention_functions() -> list[tuple[Any, str, Callable[..., dict[str, Any]]]]:
    """Return the functions that `jax.nn.dot_product_attention` calls, and how these receive queries and keys."""
    names = ("_dot_product_attention_xla", "cudnn_dot_product_attention")
    return [
        (functions, name, functools.partial(_read_arguments, inspect.signature(getattr(functions, name))))
        for name in names
        if hasattr(functions, name)
    ]


def _read_arguments(signature: inspect.Signature, *args: Any, **kwargs: Any) -> dict[str, Any]:
    """Read the arguments of XLA's or cuDNN's attention by name: the two describe causal masks and windows differently."""
    bound = signature.bind(*args, **kwargs)
    bound.apply_defaults()
    arguments = bound.arguments
    query, key = arguments["query"], arguments["key"]
    left, right = arguments.get("local_window_size") or (None, None)
    if arguments.get("sliding_window_length") is not None:
        left, right = arguments["sliding_window_length"] - 1, 0
    if arguments.get("is_causal") or "CAUSAL" in getattr(arguments.get("mask_type"), "name", ""):
        right = 0
    q_seqlen, kv_seqlen = arguments.get("q_seqlen"), arguments.get("kv_seqlen")
    return {
        "query": query,
        "key": key,
        "value": arguments["value"],
        "bias": arguments.get("bias"),
        "array": arguments.get("mask"),
        "scale": arguments["scale"],
        "left": left,
        "right": right,
        "keys": None if kv_seqlen is None else jnp.arange(key.shape[1])[None] < kv_seqlen[:, None],
        "queries": None if q_seqlen is None else jnp.arange(query.shape[1])[None] < q_seqlen[:, None],
        "heads_first": False,
    }


def _inner_jaxpr(name: str, params: Any) -> Any:
    """Return the function that a primitive computes as it is; None for a loop, a branch or anything else."""
    jaxpr = params.get("jaxpr") if name in ("jit", "pjit", "checkpoint", "remat2", "closed_call", "core_call") else None
    return getattr(jaxpr, "jaxpr", jaxpr)


def _primitives(jaxpr: Any) -> set[str]:
    """Return the names of the primitives of a jitted function and of those that it calls."""
    names = {equation.primitive.name for equation in jaxpr.eqns}
    return names.union(
        *(_primitives(each) for equation in jaxpr.eqns for each in core.jaxprs_in_params(equation.params))
    )


def _may_have_softmax(jaxpr: Any) -> bool:
    """Return True if a jitted function has exponentials and sums."""
    return {"exp", "reduce_sum"} <= _primitives(jaxpr)


def _has_softmax(jaxpr: Any) -> bool:
    """Return True if a function has exponentials, sums and a division, as a softmax has."""
    return {"exp", "reduce_sum", "div"} <= _primitives(jaxpr)


def _emit_alias(observer: OperationObserver, source: Any, target: Any) -> None:
    if hasattr(source, "shape") and source is not target:
        observer.on_operation(TensorOperation("alias", (source,), target))


class _Variable:
    """A variable of a jitted function, in place of its tensor."""

    def __init__(self, variable: Any) -> None:
        self.shape, self.dtype = variable.aval.shape, getattr(variable.aval, "dtype", None)


def _walk(observer: OperationObserver, jaxpr: Any, inputs: Any, outputs: Any) -> None:
    """Describe what a jitted function did with its inputs."""
    if not observer.is_followed(inputs) and not {"exp", "exp2"} & _primitives(jaxpr):
        return
    values: dict[Any, Any] = {}
    for variable, tensor in zip(jaxpr.invars, inputs, strict=True):
        values[variable] = tensor

    def read(atom: Any) -> Any:
        return atom.val if hasattr(atom, "val") else values.setdefault(atom, _Variable(atom))

    results = dict(zip(jaxpr.outvars, outputs, strict=True)) if len(set(map(id, jaxpr.outvars))) == len(outputs) else {}
    for equation in jaxpr.eqns:
        operands = [read(atom) for atom in equation.invars]
        for variable in equation.outvars:
            values[variable] = results.get(variable, None) if variable in results else _Variable(variable)
        computed = [values[variable] for variable in equation.outvars]
        inner = _inner_jaxpr(equation.primitive.name, equation.params)
        if inner is not None:
            _walk(observer, inner, operands, computed)
        elif computed:
            observer.on_operation(_describe(equation.primitive.name, tuple(operands), computed[0], equation.params))
    for variable, tensor in zip(jaxpr.outvars, outputs, strict=True):
        if not hasattr(variable, "val") and values.get(variable) is not tensor and variable in values:
            _emit_alias(observer, values[variable], tensor)


def _describe(name: str, inputs: tuple, output: Any, params: Any) -> TensorOperation:
    """Describe a primitive that has run."""
    plain = TensorOperation(name, inputs, output)
    described = _describe_axes(name, inputs, output, params)
    return (
        plain
        if described is None
        else plain._replace(input_axes=described[0], output_axes=described[1], **described[2])
    )


def _describe_axes(name: str, inputs: tuple, output: Any, params: Any) -> Any:
    """Return the axes of inputs and output, and further fields; None for an elementwise or unknown primitive."""
    if not inputs or not hasattr(inputs[0], "shape"):
        return None
    x, rank = inputs[0], len(inputs[0].shape)
    labels = axes.label_axes(rank)
    if name == "dot_general":
        (contracted, contracted_right), (batch, batch_right) = params["dimension_numbers"]
        left = {axis: ("left", axis) for axis in range(rank)}
        right = {axis: ("right", axis) for axis in range(len(inputs[1].shape))}
        right.update(
            {b: left[a] for a, b in zip((*contracted, *batch), (*contracted_right, *batch_right), strict=True)}
        )
        free = [left[axis] for axis in left if axis not in (*contracted, *batch)]
        free_right = [right[axis] for axis in right if axis not in (*contracted_right, *batch_right)]
        result = [*(left[axis] for axis in batch), *free, *free_right]
        each = (tuple((left[axis],) for axis in left), tuple((right[axis],) for axis in right))
        return each, tuple((label,) for label in result), {}
    if name in ("reduce_sum",):
        return (labels,), axes.reduce_axes(rank, params["axes"], False), {}
    if name == "transpose":
        return (labels,), tuple((axis,) for axis in params["permutation"]), {}
    if name in ("reshape", "squeeze", "expand_dims"):
        return (labels,), axes.reshape_axes(x.shape, output.shape), {}
    if name == "broadcast_in_dim":
        sources = {target: source for source, target in enumerate(params["broadcast_dimensions"])}
        return (labels,), tuple((sources[axis],) if axis in sources else () for axis in range(len(output.shape))), {}
    if name == "split":  # the first piece
        return (labels,), labels, {"starts": dict.fromkeys(range(rank), 0)}
    if name == "slice":
        if params["strides"] is not None and any(stride != 1 for stride in params["strides"]):
            return None
        return (labels,), labels, {"starts": dict(enumerate(params["start_indices"]))}
    return None
