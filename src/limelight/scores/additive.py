"""Additive and location-sensitive scores: networks of one hidden layer over query and key."""

import dataclasses
from typing import Any

import keras
from keras import ops

from limelight.core.block import Block
from limelight.core.component import LearnedComponent, register
from limelight.core.precision import project, upcast
from limelight.core.shapes import size_of
from limelight.core.validation import check_positive_int
from limelight.scores.score import Score


class HiddenLayerScore(LearnedComponent, Score):
    """Base class of scores with a hidden layer over query and key.

    Args:
        units: The width of the hidden layer.
        kernel_initializer, kernel_regularizer: Those of its kernels.
    """

    def __init__(
        self, units: int, kernel_initializer: Any = "glorot_uniform", kernel_regularizer: Any = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        check_positive_int("units", units)
        self.units = units
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.kernel_regularizer = keras.regularizers.get(kernel_regularizer)

    def build(self, query_shape: tuple, key_shape: tuple) -> None:
        self.query_kernel = self.add_kernel("query_kernel", query_shape[-1])
        self.key_kernel = self.add_kernel("key_kernel", key_shape[-1])
        self.bias = self.add_weight(name="bias", shape=(self.units,), initializer="zeros", autocast=False)
        # A matrix (units, 1), because Glorot initialization depends on the shape.
        self.readout = self.add_kernel("readout", self.units, 1)

    def call(self, query: Any, key: Any, *, block: Block) -> Any:
        return self.score_projected_keys(query, self.project_keys(key), block=block)

    def project_keys(self, key: Any) -> Any:
        return project(upcast(key), self.key_kernel)

    def project_queries(self, query: Any) -> Any:
        """Project queries and add the bias, (..., T, units)."""
        return ops.add(project(upcast(query), self.query_kernel), self.bias)

    def add_kernel(self, name: str, size: int, units: int | None = None) -> Any:
        """Add a weight of shape (size, units)."""
        return self.add_weight(
            name=name,
            shape=(size, self.units if units is None else units),
            # One initializer object gives all weights of the same shape the same values.
            initializer=self.kernel_initializer.clone(),
            regularizer=self.kernel_regularizer,
            autocast=False,
        )


@register
class Additive(HiddenLayerScore):
    r"""Bahdanau's additive score: a network of one hidden layer over query and key, which may differ in size.

    $$s_{ij} = v^\top \tanh(W q_i + U k_j + b)$$

    Luong's "concat" score is the same: there $W$ and $U$ are one matrix, applied to the concatenation of query and key.

    Args:
        units: The width of the hidden layer.
        kernel_initializer, kernel_regularizer: Those of $W$ (H, units), $U$ (G, units) and $v$ (units,).

    Shapes: query (..., T, H), key (..., S, G), scores (..., T, S).

    Raises:
        ValueError: `units` is not a positive integer.

    Example:
        >>> import numpy as np, limelight as ll
        >>> query, key = np.ones((1, 2, 3), "float32"), np.ones((1, 5, 4), "float32")
        >>> tuple(ll.attention_weights(query, key, score=ll.scores.Additive(7)).shape)
        (1, 2, 5)

    References:
        Bahdanau et al. 2015, arXiv:1409.0473; Luong et al. 2015, arXiv:1508.04025 (concat).
    """

    @property
    def cost(self) -> int:
        return self.units

    def score_projected_keys(self, query: Any, key: Any, *, block: Block) -> Any:
        return Readout(self.readout)(self.project_queries(query), key, block=block)

    def prepare(self, query: Any, key: Any, *, block: Block) -> tuple[Any, Any, Score]:
        return self.project_queries(query), self.project_keys(key), Readout(self.readout)


@dataclasses.dataclass(frozen=True, eq=False)
class Readout(Score):
    """Score of projected queries and keys, $v^T tanh(q_i + k_j)$: what remains of an additive score after `prepare`.

    Args:
        kernel: $v$, (units, 1).
    """

    kernel: Any

    @property
    def cost(self) -> int:
        return size_of(self.kernel, 0)

    def __call__(self, query: Any, key: Any, *, block: Block) -> Any:
        hidden = ops.tanh(ops.expand_dims(query, -2) + ops.expand_dims(key, -3))  # (..., t, s, units)
        return ops.squeeze(project(hidden, self.kernel), -1)


@register
class LocationSensitive(HiddenLayerScore):
    r"""Location-sensitive score: additive, with convolutional features of the attention weights of earlier steps.

    $$s_{ij} = v^\top \tanh(W q_i + U k_j + Z f_{ij} + b), \qquad f_i = F * w_{i-1}$$

    It needs the weights of earlier steps, and so works only in `limelight.layers.AttentionCell`, which computes one query after
    another.

    Args:
        units: The width of the hidden layer.
        filters: The number of filters of the convolution $F$ over the weights.
        kernel_size: The number of keys that a filter covers.
        cumulative: Convolve the sum of the weights of all earlier steps (coverage), not the weights of the step before.
        kernel_initializer, kernel_regularizer: Those of all kernels; the filters are not regularized.

    Shapes: query (..., T, H), key (..., S, G), weights of earlier steps (..., T, S), scores (..., T, S).

    Raises:
        ValueError: `units`, `filters` or `kernel_size` is not a positive integer, or a call has no weights of earlier steps.

    Example:
        >>> import keras, limelight as ll
        >>> cell = ll.layers.AttentionCell(keras.layers.GRUCell(8), 6, score=ll.scores.LocationSensitive(4, kernel_size=3))
        >>> steps, memory = keras.Input((None, 5)), keras.Input((None, 6))
        >>> ll.layers.AttentionRNN(cell, return_sequences=True)(steps, memory).shape
        (None, None, 8)

    References:
        Chorowski et al. 2015, arXiv:1506.07503; Tu et al. 2016, arXiv:1601.04811 (coverage); See et al. 2017,
        arXiv:1704.04368 (coverage, with a kernel of 1); Shen et al. 2018, arXiv:1712.05884 (with a convolution).
    """

    def __init__(
        self,
        units: int,
        filters: int = 10,
        kernel_size: int = 31,
        cumulative: bool = False,
        kernel_initializer: Any = "glorot_uniform",
        kernel_regularizer: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(units, kernel_initializer, kernel_regularizer, **kwargs)
        check_positive_int("filters", filters)
        check_positive_int("kernel_size", kernel_size)
        self.filters, self.kernel_size, self.cumulative = filters, kernel_size, cumulative

    def build(self, query_shape: tuple, key_shape: tuple) -> None:
        super().build(query_shape, key_shape)
        self.filter_kernel = self.add_weight(
            name="filter_kernel",
            shape=(self.kernel_size, 1, self.filters),
            initializer=self.kernel_initializer.clone(),
            autocast=False,
        )
        self.location_kernel = self.add_kernel("location_kernel", self.filters)

    def score_projected_keys(self, query: Any, key: Any, *, block: Block) -> Any:
        if block.history is None:
            raise ValueError(
                "LocationSensitive needs the weights of earlier steps. Received: a call without them. "
                "Use it in limelight.layers.AttentionCell, which computes one query after another."
            )
        history = block.history
        weights = upcast(history.coverage if self.cumulative else history.previous)  # (b, n, t, s)
        shape = tuple(ops.shape(weights))
        rows = ops.reshape(weights, (-1, shape[-1], 1))
        features = ops.conv(rows, self.filter_kernel, padding="same", data_format="channels_last")
        features = ops.reshape(project(features, self.location_kernel), (*shape, self.units))
        queries, keys = ops.expand_dims(self.project_queries(query), -2), ops.expand_dims(key, -3)
        return ops.squeeze(project(ops.tanh(queries + keys + features), self.readout), -1)
