"""L1 normalization."""

import dataclasses
from typing import Any

from keras import ops

from limelight.core.block import Block
from limelight.core.component import register
from limelight.normalizers.normalizer import Normalizer, zero_masked


@register
@dataclasses.dataclass(frozen=True)
class L1(Normalizer):
    r"""L1 normalization: non-negative scores over their sum, as in linear attention.

    $$w_{ij} = \frac{m_{ij}\,s_{ij}}{\sum_k m_{ik}\,s_{ik}}$$

    A row whose permitted scores are all 0 has weights 0.

    Shapes: scores and weights (..., T, S).

    Example:
        >>> import numpy as np, limelight as ll
        >>> query, key = np.array([[1.0]]), np.array([[1.0], [3.0]])
        >>> print(np.array(ll.attention_weights(query, key, score=ll.scores.Dot(1.0), normalizer=ll.normalizers.L1())))
        [[0.25 0.75]]

    References:
        Katharopoulos et al. 2020, arXiv:2006.16236.
    """

    def __call__(self, scores: Any, mask: Any, *, block: Block) -> Any:
        scores = zero_masked(scores, mask)
        total = ops.sum(scores, axis=-1, keepdims=True)
        return scores / ops.where(ops.equal(total, 0), ops.ones_like(total), total)
