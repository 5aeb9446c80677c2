"""Data in batches, whatever it comes as."""

from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

from limelight.maps._attention_map import per_example


def batches(data: Any, size: int) -> Iterator[Any]:
    """The inputs of each batch of arrays, or of a data set that yields batches."""
    if not arrays(data):
        indexed = isinstance(data, keras.utils.PyDataset)
        for batch in (data[index] for index in range(len(data))) if indexed else data:
            yield keras.utils.unpack_x_y_sample_weight(batch)[0]
        return
    for start in range(0, length(data), size):
        yield keras.tree.map_structure(lambda leaf: leaf[start : start + size], data)  # noqa: B023


def arrays(data: Any) -> bool:
    """Whether data is an array, or a list or dict of arrays: all of it at once."""
    if isinstance(data, (list, tuple, dict)):
        return all(arrays(leaf) for leaf in keras.tree.flatten(data))
    return hasattr(data, "shape") and hasattr(data, "__getitem__")


def length(data: Any) -> int:
    """How many examples arrays hold.

    Raises:
        ValueError: arrays of different lengths.
    """
    lengths = {leaf.shape[0] for leaf in keras.tree.flatten(data)}
    if len(lengths) != 1:
        raise ValueError(f"All inputs must have the same number of examples. Received: {sorted(lengths)}.")
    return lengths.pop()


def count(data: Any, size: int, steps: int | None) -> int | None:
    """How many batches there will be, where that can be told."""
    if arrays(data):
        return -(-length(data) // size)
    known = len(data) if hasattr(data, "__len__") else None
    return known if steps is None else steps


def concatenated(outputs: list[Any]) -> Any:
    """The outputs of all batches, one after the other.

    Raises:
        ValueError: no batch, or outputs of different lengths.
    """
    if not outputs:
        raise ValueError("There must be at least one batch. Received: data without any.")
    shapes = {tuple(leaf.shape[1:] for leaf in keras.tree.flatten(one)) for one in outputs}
    if len(shapes) > 1:
        raise ValueError(
            f"Outputs of all batches must have the same shape to be put together. Received: {sorted(shapes)[:4]}. "
            "Call predict_on_batch on each batch, or pad all to one length."
        )
    return keras.tree.map_structure(lambda *leaves: np.concatenate(leaves), *outputs)


def padded_length(batch: Any, tokens: Any) -> int:
    """How many positions the tokens were padded to: the shortest input that holds the longest list of tokens.

    Raises:
        ValueError: no input is long enough.
    """
    longest = max((len(one) for one in per_example(tokens) or ()), default=0)
    lengths = sorted({leaf.shape[1] for leaf in keras.tree.flatten(batch) if len(leaf.shape) > 1})
    for found in lengths:
        if found >= longest:
            return found
    raise ValueError(
        f"Each list of tokens must fit an input of the batch. Received: {longest} tokens, inputs of length {lengths}."
    )
