"""The projections of attention layers, and their dtype policies."""

import dataclasses
import re
import string
from typing import Any

import keras
from keras import ops
from keras.dtype_policies import DTypePolicyMap

from limelight import _keras_private, masks


@dataclasses.dataclass(frozen=True)
class ProjectionConfig:
    """The settings that the projections of one multi-head layer share."""

    use_bias: bool
    kernel_initializer: Any
    bias_initializer: Any = dataclasses.field(default_factory=keras.initializers.Zeros)
    kernel_regularizer: Any = None
    bias_regularizer: Any = None
    activity_regularizer: Any = None
    kernel_constraint: Any = None
    bias_constraint: Any = None

    def split_heads(
        self, shape: tuple, num_heads: int, head_dim: int, *, name: str, dtype: Any, activation: str | None = None
    ) -> keras.layers.EinsumDense:
        """Return a built projection (B, ..., D) -> (B, ..., num_heads, head_dim)."""
        axes = string.ascii_lowercase[: len(shape) - 1]
        return self._projection(
            shape,
            f"{axes}x,xyz->{axes}yz",
            output_shape=[None] * (len(shape) - 2) + [num_heads, head_dim],
            bias_axes="yz" if self.use_bias else None,
            activation=activation,
            name=name,
            dtype=dtype,
        )

    def merge_heads(self, shape: tuple, output_shape: tuple, *, name: str, dtype: Any) -> keras.layers.EinsumDense:
        """Return a built projection (B, ..., num_heads, head_dim) -> (B, ..., *output_shape)."""
        axes, features = string.ascii_lowercase[: len(shape) - 2], string.ascii_uppercase[: len(output_shape)]
        return self._projection(
            shape,
            f"{axes}yz,yz{features}->{axes}{features}",
            output_shape=[None] * (len(shape) - 3) + list(output_shape),
            bias_axes=features if self.use_bias else None,
            name=name,
            dtype=dtype,
        )

    def _projection(self, shape: tuple, equation: str, **arguments: Any) -> keras.layers.EinsumDense:
        settings = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        settings.pop("use_bias")
        for name in ("kernel_initializer", "bias_initializer"):
            # One initializer object gives every weight of the same shape the same values.
            settings[name] = settings[name].clone()
        projection = keras.layers.EinsumDense(equation, **arguments, **settings)
        # The mask stays on the input, where the attention layer finds it: no warning that it is lost.
        projection.supports_masking = True
        projection.build(shape)
        return projection

    def get_config(self) -> dict[str, Any]:
        """Return the settings as Keras serializes them."""
        modules = {
            "initializer": keras.initializers,
            "regularizer": keras.regularizers,
            "constraint": keras.constraints,
        }
        config: dict[str, Any] = {"use_bias": self.use_bias}
        for field in dataclasses.fields(self)[1:]:
            config[field.name] = modules[field.name.rpartition("_")[2]].serialize(getattr(self, field.name))
        return config


def zero_padded_inputs(inputs: Any, *padding: Any) -> Any:
    """Zero the padded positions of what a layer projects: a NaN there, times a gradient of 0, would propagate to the kernels.

    Args:
        inputs: (B, ..., D).
        padding: Masks (B, ...), True where a position is real; None for one that is not given. A mask of fewer axes, which does
            not say by itself where it belongs, is left to the attention.
    """
    for mask in padding:
        if mask is None:
            continue
        mask = masks.as_bool(mask, "a mask")
        if len(mask.shape) == len(inputs.shape) - 1:
            inputs = ops.where(ops.expand_dims(mask, -1), inputs, ops.zeros((), dtype=inputs.dtype))
    return inputs


def get_sublayer_policy(layer: keras.Layer, name: str) -> Any:
    """Return the dtype policy of a sublayer that a layer creates in its `build`.

    It is the sublayer's own policy, never the map of the layer: Keras's projections ask the policy that they are given whether
    they are quantized, and a map says no (Keras 3.15.1).

    Args:
        layer: The outer layer.
        name: Name of the sublayer.
    """
    policy = layer.dtype_policy
    return policy[f"{layer.path}/{name}"] if isinstance(policy, DTypePolicyMap) else policy


def serialize_dtype_policies(layer: keras.Layer) -> Any:
    """Serialize a layer's dtype policy together with those of its quantized sublayers: Keras saves the first only."""
    policy = layer.dtype_policy
    sublayers = _keras_private.iterate_layers(layer, include_self=False)
    quantized = [sublayer for sublayer in sublayers if sublayer.quantization_mode is not None]
    if isinstance(policy, DTypePolicyMap):
        changed = {each.path: each.dtype_policy for each in quantized if policy[each.path] != each.dtype_policy}
        if changed:
            unchanged = {path: policy[path] for path in policy}
            policy = DTypePolicyMap(policy.default_policy.name, {**unchanged, **changed})
    elif quantized:
        # By the end of the path: in a nested model it is longer when the model is made than when it is loaded.
        suffixes = (re.escape(layer.name + each.path.removeprefix(layer.path)) for each in quantized)
        policies = {f"(.*/)?{end}": each.dtype_policy for end, each in zip(suffixes, quantized, strict=True)}
        policy = DTypePolicyMap(policy.name, policies)
    return keras.dtype_policies.serialize(policy)
