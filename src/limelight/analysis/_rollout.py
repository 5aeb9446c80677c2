"""How much of each input token reaches each token of a later layer, through all layers between."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from limelight.maps import AttentionMap

Layers = Mapping[str, AttentionMap] | Sequence[Any]


def rollout(maps: Layers, residual: float = 0.5) -> np.ndarray:
    r"""Attention rollout: the product of the layers' attention, with the residual connection counted in.

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
        ValueError: no map, a map that is no self-attention, or maps of different lengths.

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
    mixed = mixing(maps, residual)
    found = [mixed[0]]
    for layer in mixed[1:]:
        found.append(layer @ found[-1])
    return np.stack(found)


def flow(maps: Layers, residual: float = 0.5, targets: Any = None, sources: Any = None) -> np.ndarray:
    r"""Attention flow: the largest flow from each input token to each token of the last layer.

    The layers are a network of pipes. Between token j of one layer and token i of the next runs a pipe of capacity
    $\tilde A_{l,ij}$, as in `rollout`. Unlike rollout, which multiplies the shares along a path, a path carries as much as its
    narrowest pipe.

    Args:
        maps, residual: as in `rollout`.
        targets: the tokens of the last layer; all where None.
        sources: the input tokens; all where None.

    Returns:
        (B, targets, sources). Needs networkx. It takes time: one maximum flow for each pair of target and source.

    Raises:
        ValueError: as `rollout`.
        ImportError: networkx is not installed.

    References:
        Abnar and Zuidema 2020, arXiv:2005.00928.
    """
    from limelight.maps.tables import needed

    networkx = needed("networkx")
    mixed = mixing(maps, residual)
    layers, batch, length, _ = mixed.shape
    chosen = [np.arange(length) if one is None else np.atleast_1d(one) for one in (targets, sources)]
    found = np.zeros((batch, len(chosen[0]), len(chosen[1])))
    for example in range(batch):
        graph = networkx.DiGraph()
        for layer, i, j in np.argwhere(mixed[:, example] > 0).tolist():
            graph.add_edge((layer, j), (layer + 1, i), capacity=float(mixed[layer, example, i, j]))
        for row, target in enumerate(chosen[0].tolist()):
            for column, source in enumerate(chosen[1].tolist()):
                if (layers, target) in graph and (0, source) in graph:
                    found[example, row, column] = networkx.maximum_flow_value(graph, (0, source), (layers, target))
    return found


def mixing(maps: Layers, residual: float) -> np.ndarray:
    """What each layer makes of its input tokens: (L, B, T, T), rows of sum 1."""
    if not 0 <= residual <= 1:
        raise ValueError(f"`residual` must be in [0, 1]. Received: residual={residual}.")
    layers = [weights_of(one).mean(axis=1) for one in (maps.values() if isinstance(maps, Mapping) else maps)]
    shapes = [layer.shape for layer in layers]
    if not layers or len(set(shapes)) > 1 or shapes[0][-1] != shapes[0][-2]:
        raise ValueError(
            f"All layers must attend to themselves over the same tokens, (B, N, T, T). Received: weights (B, T, S) {shapes}. "
            "Choose them: maps.select('encoder/*')."
        )
    mixed = (1 - residual) * np.stack(layers) + residual * np.eye(shapes[0][-1])
    total = mixed.sum(axis=-1, keepdims=True)
    # Without a residual share a token without attention would vanish.
    mixed = np.where(total > 0, mixed, np.eye(shapes[0][-1]))
    return mixed / np.where(total > 0, total, 1)


def weights_of(one: Any) -> np.ndarray:
    """All weights (B, N, T, S) of a map or array, in float64."""
    weights = one.weights() if hasattr(one, "weights") else np.asarray(one)
    if weights.ndim != 4:
        raise ValueError(f"Weights must have shape (B, N, T, S). Received: {weights.shape}.")
    return weights.astype(np.float64)
