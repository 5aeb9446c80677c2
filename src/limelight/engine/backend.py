"""The one interface between the engine and the backends of Keras."""

import abc
import contextlib
import functools
import importlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar

import keras
from keras import ops

if TYPE_CHECKING:
    from limelight.engine.call import AttentionCall
    from limelight.engine.tensor_operation import OperationObserver
    from limelight.engine.thresholds import Thresholds


class Backend(abc.ABC):
    """Attention, tracing and gradients on one backend. Each folder beside this module implements it once, as its `BACKEND`.

    Attributes:
        cpu_thresholds: The sizes at which one implementation gives way to another, on a CPU.
        accelerator_thresholds: The same, on an accelerator.
        fused_kernel: The name of the fused kernel in explanations, if there is one.
        has_online_softmax: True if `online_softmax` is implemented.
    """

    cpu_thresholds: ClassVar["Thresholds"]
    accelerator_thresholds: ClassVar["Thresholds"]
    fused_kernel: ClassVar[str] = ""
    has_online_softmax: ClassVar[bool] = False

    # Placement

    def as_tensors(self, *arrays: Any) -> tuple[Any, ...]:
        """Return arrays as tensors of this backend, on the device that Keras uses; None stays None."""
        return tuple(None if array is None else ops.convert_to_tensor(array) for array in arrays)

    @abc.abstractmethod
    def on_accelerator(self, tensor: Any) -> bool:
        """Return True if a tensor is on an accelerator; inside a traced function, if it is expected to be."""

    # Implementations

    def prepare(self, call: "AttentionCall") -> "AttentionCall":
        """Return the call in the form in which `supports_fused` and the implementations take it."""
        return call

    def supports_fused(self, call: "AttentionCall", value: Any, *, forced: bool = False) -> bool:
        """Return True if the fused kernel can compute a prepared call.

        Args:
            call: The prepared call.
            value: The values (B, K, S, V), or None if they are like the keys.
            forced: Ignore whether the kernel pays, and whether this device has it.
        """
        return False

    def blockwise_obstacle(self, call: "AttentionCall", *, forced: bool = False) -> str | None:
        """Return why a call cannot be computed block by block, a sentence; None if it can."""
        return None

    def fused(self, call: "AttentionCall", value: Any) -> Any:
        """Return the output (B, N, T, V) of the fused kernel for values (B, K, S, V)."""
        raise NotImplementedError

    @abc.abstractmethod
    def blockwise(self, call: "AttentionCall", value: Any, *, dropout: float, seed: Any) -> Any:
        """Return the output (B, N, T, V) for values (B, K, S, V), computed in blocks of whole rows."""

    def online_softmax(self, call: "AttentionCall", value: Any, *, dropout: float, seed: Any) -> Any:
        """Return the output (B, N, T, V) for values (B, K, S, V), by a running softmax over blocks of keys."""
        raise NotImplementedError

    @abc.abstractmethod
    def attention_statistics(self, call: "AttentionCall", value: Any, **settings: Any) -> Any:
        """Return the statistics of a call, and its output if there are values (B, K, S, V), computed in blocks of whole rows."""

    # Models: tracing, compilation, gradients

    def trace_state(self) -> Any:
        """Return an object that stays equal for as long as tensors may be carried from one place to another.

        A tensor inside the body of a loop cannot leave it, because JAX and TensorFlow trace such a body on its own.
        """
        return None

    def is_exporting(self) -> bool:
        """Return True while operations are recorded for inputs of other lengths, so that none may depend on a length seen now."""
        return False

    def state_variables(self, model: Any) -> list[Any]:
        """Return the variables of a model whose values `compile` must see as arguments, not as constants or by reference."""
        return model.non_trainable_variables

    def compile(self, function: Callable[..., Any], *, jit: bool) -> Callable[..., Any]:
        """Compile a function of tensors for inference.

        Args:
            function: A function of structures of tensors that changes no variable (see `run_stateless`).
            jit: Compile with XLA.
        """
        return function

    def no_gradient(self) -> contextlib.AbstractContextManager[Any]:
        """Return a context in which nothing is recorded for a gradient."""
        return contextlib.nullcontext()

    @abc.abstractmethod
    def gradients(self, function: Callable[[list[Any]], Any], tensors: list[Any]) -> list[Any]:
        """Return the gradients of a scalar function of tensors by each of them; zeros for one that it does not depend on."""

    # Observation

    def observe_operations(self, observer: "OperationObserver") -> contextlib.AbstractContextManager[Any]:
        """Return a context in which an observer is told about the operations of this thread."""
        return contextlib.nullcontext()

    def observe_loop_body(self, observer: "OperationObserver") -> contextlib.AbstractContextManager[Any]:
        """Return a context for the body of a loop, in which an observer of what is around the loop goes on to be told."""
        return contextlib.nullcontext()

    def softmax_functions(self) -> list[tuple[Any, str, Callable[..., Any]]]:
        """Return the softmaxes that `observe_operations` does not tell about: owner, name, and a function from arguments to axis.

        They are those that all others call, so that it does not matter by which name a model has imported them.
        """
        return []

    def attention_functions(self) -> list[tuple[Any, str, Callable[..., dict[str, Any]]]]:
        """Return the same of fused attention; the functions return the arguments of `OperationObserver.on_attention`."""
        return []


def run_stateless(
    function: Callable[..., Any], variables: list[Any], values: list[Any], *args: Any, **kwargs: Any
) -> tuple[Any, list[Any]]:
    """Run a function with given values of some variables.

    Returns:
        The result, and the values that these variables would have afterwards. The variables are not changed.
    """
    with keras.StatelessScope(list(zip(variables, values, strict=True))) as scope:
        result = function(*args, **kwargs)
    updated = [scope.get_current_value(variable) for variable in variables]
    return result, [
        variable.value if value is None else value for variable, value in zip(variables, updated, strict=True)
    ]


def call_stateless(model: Any, values: list[Any], inputs: Any, **kwargs: Any) -> tuple[Any, list[Any]]:
    """Call a model with given values of its non-trainable variables. See `run_stateless`."""
    return run_stateless(model, model.non_trainable_variables, values, inputs, **kwargs)


@functools.cache
def active() -> Backend:
    """Return the implementation for the backend that Keras runs on."""
    return importlib.import_module(f"limelight.engine.{keras.backend.backend()}").BACKEND
