"""The drift of attention from one training epoch to the next."""

import itertools
from collections.abc import Mapping, Sequence

import numpy as np

from limelight.maps import AttentionMap


def drift(epochs: Sequence[Mapping[str, AttentionMap]]) -> dict[str, np.ndarray]:
    r"""Compute how far the weights of each head move from one epoch to the next, on the same examples.

    $$D = H\big(\tfrac{p + q}{2}\big) - \tfrac{H(p) + H(q)}{2}$$ the Jensen-Shannon divergence between the weights of a query
    before and after, in nats, at most $\ln 2$; the mean over the queries that have weights in both.

    Args:
        epochs: maps of the same examples, such as those that `AttentionCallback` saves after each epoch.

    Returns:
        For each key that all epochs have, (E - 1, N): the divergence of epochs e and e + 1. Small late values say that attention
        has settled; large ones that a picture of it would be another one if training had stopped an epoch earlier.

    Raises:
        ValueError: there are fewer than two epochs, they share no key, or the maps of a key differ in shape.

    Example:
        >>> import numpy as np
        >>> from limelight import AttentionMap, AttentionMaps, analysis
        >>> first, second = (AttentionMaps([AttentionMap.from_weights(np.array([w]))]) for w in ([1.0, 0.0], [0.0, 1.0]))
        >>> print(analysis.drift([first, second, second])["attention"].round(3))
        [[0.693]
         [0.   ]]
    """
    if len(epochs) < 2:
        raise ValueError(f"`epochs` must hold the maps of at least two epochs. Received: {len(epochs)}.")
    keys = [key for key in epochs[0] if all(key in maps for maps in epochs)]
    if not keys:
        raise ValueError(f"All epochs must share a map. Received: {', '.join(epochs[0])} and {', '.join(epochs[-1])}.")
    for key in keys:
        shapes = sorted({maps[key].shape for maps in epochs})
        if len(shapes) > 1:
            raise ValueError(f"The maps of {key!r} must be of the same examples. Received: shapes {shapes}.")
    return {
        key: np.stack([before[key].diff(after[key]).same_index for before, after in itertools.pairwise(epochs)])
        for key in keys
    }
