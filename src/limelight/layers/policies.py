"""Dtype policies of a layer and of the layers in it, so that one whose projections are quantized is what is loaded again."""

import re
from typing import Any

import keras
from keras.dtype_policies import DTypePolicyMap


def policy_of(layer: keras.Layer, name: str) -> Any:
    """The dtype policy of a layer that is made within another in its `build`.

    It is its own and never the map: Keras's projections ask the policy that they are given whether they are quantized, and a
    map says no (Keras 3.15.1).

    Args:
        layer: the outer one.
        name: of the inner one.
    """
    policy = layer.dtype_policy
    return policy[f"{layer.path}/{name}"] if isinstance(policy, DTypePolicyMap) else policy


def policies_of(layer: keras.Layer) -> Any:
    """A layer's dtype policy with those of the layers in it that are quantized, for its config: Keras saves the first alone."""
    policy = layer.dtype_policy
    inner = [each for each in layer._flatten_layers(include_self=False) if each.quantization_mode is not None]
    if isinstance(policy, DTypePolicyMap):
        changed = {each.path: each.dtype_policy for each in inner if policy[each.path] != each.dtype_policy}
        known = {path: policy[path] for path in policy}
        return DTypePolicyMap(policy.default_policy.name, {**known, **changed}) if changed else policy
    # By the end of its path: in a model within another it is longer when the model is made than when it is loaded.
    ends = {f"(.*/)?{re.escape(layer.name + each.path.removeprefix(layer.path))}": each.dtype_policy for each in inner}
    return DTypePolicyMap(policy.name, ends) if ends else policy
