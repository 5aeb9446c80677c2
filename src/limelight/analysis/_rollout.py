"""The share of each input token in each token of a later layer, through all layers between."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from limelight._indexing import resolve_indices
from limelight._optional import import_optional
from limelight.maps import AttentionMap

Layers = Mapping[str, AttentionMap] | Sequence[Any]


def rollout(maps: Layers, residual: float = 0.5) -> np.ndarray:
    r"""Compute attention rollout: the product of the layers' attention, with the residual connection counted in.

    $$\tilde A_l = \mathrm{rows}\big((1 - r)\,\tfrac1N \textstyle\sum_n A_{l,n} + r I\big), \qquad R_l = \tilde A_l R_{l-1}$$

    from $R_0 = I$, where rows() divides each row by its sum.

    Args:
        maps: self-attention maps of the layers in order, first layer first (`AttentionMaps`, or a list of maps or of arrays
            (B, N, T, T)).
        residual: the share $r$ of the residual connection, in [0, 1].

    Returns:
        (L, B, T, T): how much of input token j is in token i after each layer. Rows sum to 1. A token without attention (padding)
        stays itself.

    Raises:
        ValueError: there is no map, a map is not of self-attention, or the maps have different lengths.

    Example:
        >>> import numpy as np
        >>> from limelight import analysis
        >>> layer = np.array([[[[1.0, 0.0], [0.5, 0.5]]]])
        >>> print(analysis.rollout([layer, layer])[-1, 0])
        [[1.     0.    ]
         [0.4375 0.5625]]

    References:
        Abnar and Zuidema 2020, arXiv:2005.00928.
    """
    first, *layers = _residual_attention(maps, residual)
    products = [first]
    for layer in layers:
        products.append(layer @ products[-1])
    return np.stack(products)


def flow(maps: Layers, residual: float = 0.5, targets: Any = None, sources: Any = None) -> np.ndarray:
    r"""Compute attention flow: the maximum flow from each input token to each token of the last layer.

    The layers are a flow network. The edge from token j of one layer to token i of the next has capacity $\tilde A_{l,ij}$, as
    in `rollout`. Unlike rollout, which multiplies the shares along a path, a path carries as much as its narrowest edge.

    Args:
        maps, residual: as in `rollout`.
        targets: the tokens of the last layer: an int, a slice, a list of ints or bools; all where None.
        sources: the input tokens, likewise.

    Returns:
        (B, targets, sources). Needs networkx. It takes time: one maximum flow for each pair of target and source.

    Raises:
        ValueError: as `rollout`.
        IndexError: there is no such token.
        ImportError: networkx is not installed.

    References:
        Abnar and Zuidema 2020, arXiv:2005.00928.
    """
    networkx = import_optional("networkx")
    capacities = _residual_attention(maps, residual)
    layers, batch, length, _ = capacities.shape
    targets, sources = resolve_indices(targets, length, "targets"), resolve_indices(sources, length, "sources")
    result = np.zeros((batch, len(targets), len(sources)))
    for example in range(batch):
        graph = networkx.DiGraph()
        for layer, i, j in np.argwhere(capacities[:, example] > 0).tolist():
            graph.add_edge((layer, j), (layer + 1, i), capacity=float(capacities[layer, example, i, j]))
        for row, target in enumerate(targets.tolist()):
            for column, source in enumerate(sources.tolist()):
                if (layers, target) in graph and (0, source) in graph:
                    result[example, row, column] = networkx.maximum_flow_value(graph, (0, source), (layers, target))
    return result


def _residual_attention(maps: Layers, residual: float) -> np.ndarray:
    """Return the attention of each layer with its residual connection, averaged over heads: (L, B, T, T), rows of sum 1."""
    if not 0 <= residual <= 1:
        raise ValueError(f"`residual` must be in [0, 1]. Received: residual={residual}.")
    maps = maps.values() if isinstance(maps, Mapping) else maps  # pyright: ignore[reportAssignmentType]
    layers = [_weights(attention).mean(axis=1) for attention in maps]
    shapes = [layer.shape for layer in layers]
    if not layers or len(set(shapes)) > 1 or shapes[0][-1] != shapes[0][-2]:
        raise ValueError(
            "All layers must be self-attention over the same tokens, (B, N, T, T). Received: weights (B, T, S) of shapes "
            f"{shapes}. Select them: maps.select('encoder/*')."
        )
    identity = np.eye(shapes[0][-1])
    mixed = (1 - residual) * np.stack(layers) + residual * identity
    total = mixed.sum(axis=-1, keepdims=True)
    # Without a residual share a token without attention would vanish.
    return np.where(total > 0, mixed / np.where(total > 0, total, 1), identity)


def _weights(attention: Any) -> np.ndarray:
    """Return all weights (B, N, T, S) of a map or an array, in float64."""
    weights = attention.weights() if isinstance(attention, AttentionMap) else np.asarray(attention)
    if weights.ndim != 4:
        raise ValueError(f"Weights must have shape (B, N, T, S). Received: {weights.shape}.")
    return weights.astype(np.float64)
