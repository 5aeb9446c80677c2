"""Private interfaces of Keras that limelight depends on, each with the reason why no public one suffices.

Nothing else in limelight imports `keras.src` or reads an underscored attribute of an object of Keras's. All of them exist in
Keras 3.15.1, the oldest version that limelight supports; a newer Keras that moves one is followed here alone.
"""

import contextlib
import dataclasses
import math
import threading
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
from keras.src import backend as _backend
from keras.src.backend.common import keras_tensor, variables
from keras.src.layers.rnn import dropout_rnn_cell
from keras.src.models import functional

__all__ = [
    "ATTENTION_METHODS",
    "COMPUTE_ATTENTION",
    "COMPUTE_ATTENTION_MASK",
    "MASKED_SOFTMAX",
    "WRAPPERS",
    "DropoutRNNCell",
    "Functional",
    "any_symbolic_tensors",
    "arguments_unconverted",
    "backend",
    "get_attention_scale",
    "get_compile_arguments",
    "get_flash_attention",
    "get_keras_mask",
    "get_lambda_output_shape",
    "get_output_dense",
    "get_sliding_window",
    "get_value_dense",
    "is_rematerialized",
    "iterate_layers",
    "iterate_output_shapes",
    "limit_variables",
    "make_predictor",
    "run_predict_step",
]

# The functions of the backend, of which `inspection` replaces some while it records; the public `keras.backend` has none.
backend: Any = _backend
# Returns True if any argument is symbolic: `inspection` lets symbolic calls pass. `keras.ops` has no such function.
any_symbolic_tensors: Any = keras_tensor.any_symbolic_tensors
# The base by which `keras.layers.RNN` recognizes cells whose dropout masks it must draw before its loop.
DropoutRNNCell: Any = dropout_rnn_cell.DropoutRNNCell
# The class of `keras.Model(inputs, outputs)`, by which `conversion` knows that a model's config describes what it computes.
Functional: Any = functional.Functional
# Layers whose `call` runs a module of a backend; the public names of some exist on one backend only.
WRAPPERS: Any = tuple(
    getattr(keras.layers, name) for name in ("TorchModuleWrapper", "JaxLayer", "FlaxLayer", "TFSMLayer")
)
# Methods of `keras.layers.MultiHeadAttention` and `GroupQueryAttention` that see the projected heads and the dense mask.
COMPUTE_ATTENTION = "_compute_attention"
COMPUTE_ATTENTION_MASK = "_compute_attention_mask"
MASKED_SOFTMAX = "_masked_softmax"
# Methods of `keras.layers.Attention` and `AdditiveAttention`: a subclass that overrides one may compute something else.
ATTENTION_METHODS = ("call", "_calculate_scores", "_apply_scores", "_calculate_score_mask")


def get_keras_mask(tensor: Any) -> Any:
    """Return the implicit mask that a tensor carries, or None: `compute_mask` receives the first argument's alone."""
    return _backend.get_keras_mask(tensor)


@contextlib.contextmanager
def arguments_unconverted(layer: Any) -> Iterator[None]:
    """Let a layer take its arguments as they are: Keras casts all floats, or with `autocast=False` none."""
    layer._convert_input_args = False
    try:
        yield
    finally:
        layer._convert_input_args = True


def iterate_layers(layer: Any, include_self: bool = True) -> Iterator[Any]:
    """Iterate over the layers within a layer, recursively: `Model.layers` is public, but lists one level and models only."""
    return layer._flatten_layers(include_self=include_self)


def iterate_output_shapes(layer: Any) -> Iterator[tuple[int | None, ...]]:
    """Iterate over the shapes of all symbolic outputs within a layer: `output` is one, and only of a layer called once."""
    for inner in [*iterate_layers(layer), *getattr(layer, "operations", ())]:
        for node in inner._inbound_nodes:
            for tensor in node.outputs:
                yield tuple(tensor.shape)


def iterate_model_inputs(model: Any, layer: Any) -> Iterator[Any]:
    """Iterate over the inputs of a model that a layer inside it is called on, directly or by the input of a nested model.

    Only the nodes of a graph tell what a nested model is called on.
    """
    nested = [inner for inner in iterate_layers(model, include_self=False) if getattr(inner, "inputs", None)]
    tensors = [tensor for node in layer._inbound_nodes for tensor in node.input_tensors]
    seen: set[int] = set()
    while tensors:
        tensor = tensors.pop()
        # A model may be called on its own inputs.
        if id(tensor) in seen:
            continue
        seen.add(id(tensor))
        if any(tensor is each for each in model.inputs):
            yield tensor
        for inner in nested:
            for position, each in enumerate(inner.inputs):
                if each is tensor:
                    tensors += [node.input_tensors[position] for node in inner._inbound_nodes]


@dataclasses.dataclass
class VariableLimit:
    """A limit of the bytes of new variables. See `limit_variables`.

    Args:
        max_bytes: The limit.
        num_bytes: The bytes of the variables so far, also of one that was refused.
    """

    max_bytes: int
    num_bytes: int = 0

    @property
    def is_exceeded(self) -> bool:
        """True once a variable was refused."""
        return self.num_bytes > self.max_bytes


@contextlib.contextmanager
def limit_variables(max_bytes: int) -> Iterator[VariableLimit]:
    """Refuse variables that this thread creates inside the block once they have more than so many bytes in all.

    Every variable of every backend checks its shape by one method before it is allocated. There is no public hook there.
    """
    limit, seen, thread = VariableLimit(max_bytes), set(), threading.get_ident()
    original = variables.Variable._validate_shape

    def check_shape(variable: Any, shape: Any) -> Any:
        shape = original(variable, shape)
        # JAX checks a shape twice.
        if threading.get_ident() == thread and id(variable) not in seen:
            seen.add(id(variable))
            limit.num_bytes += math.prod(shape) * np.dtype(variable.dtype).itemsize
            if limit.is_exceeded:
                raise ValueError(f"The variables have more than {max_bytes:,} bytes.")
        return shape

    variables.Variable._validate_shape = check_shape
    try:
        yield limit
    finally:
        variables.Variable._validate_shape = original


def is_rematerialized(operation: Any) -> bool:
    """Return True if the layer was created in a `keras.RematScope`, which leaves no public trace on the layer."""
    return getattr(operation, "_remat_mode", None) is not None


def get_flash_attention(layer: Any) -> bool | None:
    """Return the argument `flash_attention` of a multi-head layer of Keras's: its `get_config` leaves it out."""
    return layer._flash_attention or None


def get_attention_scale(layer: Any) -> Any:
    """Return the factor on the scores of `MultiHeadAttention` or `GroupQueryAttention`, which may be set after construction."""
    if hasattr(layer, "_inverse_sqrt_key_dim"):
        return layer._inverse_sqrt_key_dim
    return layer._inverse_sqrt_head_dim


def get_sliding_window(layer: Any) -> int | None:
    """Return `sliding_window` of a multi-head layer: private in `MultiHeadAttention`, public in `GroupQueryAttention`."""
    return getattr(layer, "_sliding_window", None) or getattr(layer, "sliding_window", None)


def get_value_dense(layer: Any) -> Any:
    """Return the value projection of a multi-head layer of Keras's or limelight's, or None: not all have the public property."""
    return getattr(layer, "_value_dense", None)


def get_output_dense(layer: Any) -> Any:
    """Return the output projection of a multi-head layer of Keras's or limelight's, or None."""
    return getattr(layer, "_output_dense", None)


def get_lambda_output_shape(layer: keras.layers.Lambda) -> Any:
    """Return the argument `output_shape` of a Lambda as it was given: `get_config` holds the marshalled code of a function."""
    return layer._output_shape


def get_compile_arguments(model: Any) -> dict[str, Any]:
    """Return the arguments of `compile` as objects: `get_compile_config` gives them serialized."""
    return dict(model._compile_config.config)


def make_predictor(model: Any, predict_batch: Callable[[Any], Any]) -> Any:
    """Return a stand-in for a model that predicts each batch by a function.

    `predict` of Keras, and that of a model's own class, prepare data of many kinds for one function of the model, which runs a
    batch and which cannot be replaced in public. The stand-in has the model's class and its attributes except for this function,
    so that the model is not touched.

    Args:
        model: the model, or a layer, to which `keras.Model.predict` is then added.
        predict_batch: receives a batch as a data set yields it, and returns the outputs.
    """
    is_jax = _backend.backend() == "jax"

    model_class: Any = type(model) if isinstance(model, keras.Model) else keras.Model

    class Predictor(model_class):
        # The state is that of the model, and JAX must not take it away.
        variables = trainable_variables = non_trainable_variables = ()

        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            return model(*args, **kwargs)

    Predictor.__name__ = type(model).__name__
    predictor: Any = object.__new__(Predictor) if isinstance(model, keras.Model) else Predictor()
    if is_jax:
        function: Any = lambda state, iterator: (predict_batch(next(iterator)), state)  # noqa: E731
    else:
        function = lambda data: predict_batch(data[0])  # noqa: E731
    attributes = vars(model) if isinstance(model, keras.Model) else {}
    vars(predictor).update({**attributes, "steps_per_execution": 1, "predict_function": function})
    return predictor


def run_predict_step(model: Any, data: Any) -> Any:
    """Return the outputs of a model's `predict_step` for a batch: on JAX it takes the state, and returns the new state."""
    if not isinstance(model, keras.Model):
        return model(keras.utils.unpack_x_y_sample_weight(data)[0], training=False)
    if _backend.backend() != "jax":
        return model.predict_step(data)
    variables = model.non_trainable_variables
    state = tuple([variable.value for variable in group] for group in (model.trainable_variables, variables))
    outputs, values = model.predict_step(state, data)
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)
    return outputs
