"""Scores that wrap another score: QK-norm, a soft cap, a learned scale."""

import math
from typing import Any

import keras
from keras import ops

from limelight.core.block import Block
from limelight.core.component import LearnedComponent, deserialize, register
from limelight.core.precision import upcast
from limelight.core.shapes import size_of
from limelight.core.validation import check_positive
from limelight.scores.products import l2_normalize, squared_norm
from limelight.scores.score import Score, build, get_num_heads, prepare_score


class Wrapper(LearnedComponent, Score):
    """Base class of scores that change the inputs or the output of another score.

    Args:
        score: The wrapped score.
    """

    def __init__(self, score: Score, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        score = deserialize(score)
        if not isinstance(score, Score):
            raise TypeError(
                f"`score` must be a Score. Received: {score!r} of type {type(score).__name__}. "
                f"For example {type(self).__name__}(limelight.scores.Dot())."
            )
        self.score = score

    @property
    def cost(self) -> int:
        return self.score.cost

    def build(self, query_shape: tuple, key_shape: tuple) -> None:
        build(self.score, query_shape, key_shape)


@register
class QKNorm(Wrapper):
    r"""QK-norm: a score of normalized queries and keys, so that scores cannot grow without bound.

    $$\hat q = g \odot \frac{q}{\sqrt{\mathrm{mean}(q^2) + \epsilon}}$$

    with learned gains $g$ ("rms"), or $\hat q = q / \lVert q \rVert$ ("l2"); keys likewise.

    Args:
        score: The score of the normalized vectors. `QKNorm(Rotary(Dot()))` normalizes before it rotates.
        kind: "rms", with learned gains (H,) for queries and (G,) for keys, or "l2".
        epsilon: $\epsilon$ of "rms".

    Shapes: query (..., T, H), key (..., S, G), scores (..., T, S).

    Raises:
        ValueError: `kind` is neither "rms" nor "l2".
        TypeError: `score` is not a score.

    Example:
        >>> import numpy as np, limelight as ll
        >>> query, key = np.array([[3.0, 0.0]]), np.array([[9.0, 0.0], [0.0, 2.0]])
        >>> print(np.array(ll.attention_weights(query, key, score=ll.scores.QKNorm(ll.scores.Dot(scale=1.0), "l2"))).round(3))
        [[0.731 0.269]]

    References:
        Henry et al. 2020, arXiv:2010.04245 (l2); Dehghani et al. 2023, arXiv:2302.05442; Yang et al. 2025, arXiv:2505.09388
        (rms).
    """

    def __init__(self, score: Score, kind: str = "rms", epsilon: float = 1e-6, **kwargs: Any) -> None:
        super().__init__(score, **kwargs)
        if kind not in ("rms", "l2"):
            raise ValueError(f'`kind` must be "rms" or "l2". Received: kind={kind!r}.')
        self.kind, self.epsilon = kind, epsilon

    def build(self, query_shape: tuple, key_shape: tuple) -> None:
        if self.kind == "rms":
            gains: dict[str, Any] = {"initializer": "ones", "autocast": False}
            self.query_gain = self.add_weight(name="query_gain", shape=(query_shape[-1],), **gains)
            self.key_gain = self.add_weight(name="key_gain", shape=(key_shape[-1],), **gains)
        super().build(query_shape, key_shape)

    def call(self, query: Any, key: Any, *, block: Block) -> Any:
        return self.score(*self.normalize(query, key), block=block)

    def prepare(self, query: Any, key: Any, *, block: Block) -> tuple[Any, Any, Score]:
        return prepare_score(self.score, *self.normalize(query, key), block=block)

    def normalize(self, query: Any, key: Any) -> tuple[Any, Any]:
        """Normalize queries and keys, in float32 or wider."""
        if self.kind == "l2":
            return l2_normalize(query), l2_normalize(key)
        return self._rms_normalize(query, self.query_gain), self._rms_normalize(key, self.key_gain)

    def _rms_normalize(self, tensor: Any, gain: Any) -> Any:
        tensor = upcast(tensor)
        gain = ops.cast(ops.convert_to_tensor(gain), tensor.dtype)
        return tensor * ops.rsqrt(squared_norm(tensor) / size_of(tensor, -1) + self.epsilon) * gain


@register
class SoftCap(Wrapper):
    r"""Soft cap: a score bounded smoothly between -cap and cap.

    $$s'_{ij} = c \tanh(s_{ij} / c)$$

    Args:
        score: The score to cap.
        cap: The bound $c > 0$.

    Shapes: those of the wrapped score.

    Raises:
        ValueError: `cap` is not positive.
        TypeError: `score` is not a score.

    Example:
        >>> import numpy as np, limelight as ll
        >>> query, key = np.array([[1000.0]]), np.array([[1.0], [0.0]])
        >>> print(np.array(ll.attention_weights(query, key, score=ll.scores.SoftCap(ll.scores.Dot(), 1.0))).round(3))
        [[0.731 0.269]]

    References:
        Bello et al. 2017, arXiv:1611.09940; Gemma Team 2024, arXiv:2408.00118.
    """

    def __init__(self, score: Score, cap: float, **kwargs: Any) -> None:
        super().__init__(score, **kwargs)
        check_positive("cap", cap)
        self.cap = cap

    def call(self, query: Any, key: Any, *, block: Block) -> Any:
        return self.cap * ops.tanh(self.score(query, key, block=block) / self.cap)

    def prepare(self, query: Any, key: Any, *, block: Block) -> tuple[Any, Any, Score]:
        query, key, prepared = prepare_score(self.score, query, key, block=block)
        return query, key, self if prepared is self.score else SoftCap(prepared, self.cap)


@register
class LearnedScale(Wrapper):
    r"""Learned scale: a score times a learned positive factor for each head.

    $$s'_{ij} = e^{\theta_n} s_{ij}$$

    Args:
        score: The score to scale.
        scale: The initial value of the factor $e^{\theta_n}$.

    Shapes: those of the wrapped score; $\theta$ (N,).

    Raises:
        ValueError: `scale` is not positive.
        TypeError: `score` is not a score.

    Example:
        >>> import keras, numpy as np, limelight as ll
        >>> x = np.eye(2, dtype="float32")
        >>> weights = ll.attention_weights(x, x, score=ll.scores.LearnedScale(ll.scores.Dot(scale=1.0), 2.0))
        >>> print(keras.ops.convert_to_numpy(weights).round(3))
        [[0.881 0.119]
         [0.119 0.881]]

    References:
        Henry et al. 2020, arXiv:2010.04245.
    """

    def __init__(self, score: Score, scale: float = 1.0, **kwargs: Any) -> None:
        super().__init__(score, **kwargs)
        check_positive("scale", scale)
        self.scale = scale

    def build(self, query_shape: tuple, key_shape: tuple) -> None:
        initializer = keras.initializers.Constant(math.log(self.scale))
        shape = (get_num_heads(query_shape),)
        self.log_scale = self.add_weight(name="log_scale", shape=shape, initializer=initializer, autocast=False)
        super().build(query_shape, key_shape)

    def call(self, query: Any, key: Any, *, block: Block) -> Any:
        scale = block.slice(ops.exp(ops.convert_to_tensor(self.log_scale)), "n")
        return ops.multiply(self.score(query, key, block=block), scale)
