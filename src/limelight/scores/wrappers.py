"""Scores around another score: normalised vectors, a cap, a learned factor."""

import math
from typing import Any

import keras
from keras import ops

from limelight.core.block import Block
from limelight.core.component import LearnedComponent, deserialize, register
from limelight.core.precision import upcast
from limelight.scores.products import squared, unit
from limelight.scores.score import Score, build, head_count


class Wrapper(LearnedComponent, Score):
    """A score that changes what goes into another one, or what comes out. Abstract.

    Args:
        score: the inner score.
    """

    def __init__(self, score: Score, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        inner = deserialize(score)
        if not isinstance(inner, Score):
            raise TypeError(
                f"`score` must be a Score. Received: {inner!r} of type {type(inner).__name__}. "
                f"For example limelight.{type(self).__name__}(limelight.scores.Dot())."
            )
        self.score = inner

    @property
    def cost(self) -> int:
        return self.score.cost

    def build(self, query_shape: tuple, key_shape: tuple) -> None:
        build(self.score, query_shape, key_shape)


@register
class QKNorm(Wrapper):
    r"""A score of queries and keys that are normalised first ("qk-norm"), so that scores cannot grow without bound.

    $$\hat q = g \odot \frac{q}{\sqrt{\mathrm{mean}(q^2) + \epsilon}}$$ and so for keys, with learned gains $g$; or
    $\hat q = q / \lVert q \rVert$ without.

    Args:
        score: the score of the normalised vectors. `QKNorm(Rotary(Dot()))` normalises before it rotates.
        kind: "rms" with learned gains of shape (H,) for queries and (G,) for keys, or "l2".
        epsilon: $\epsilon$, of "rms".

    Shapes: query (..., T, H), key (..., S, G), scores (..., T, S).

    Raises:
        ValueError: an unknown kind.
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
        return self.score(*self.normed(query, key), block=block)

    def prepare(self, query: Any, key: Any, *, block: Block) -> tuple[Any, Any, Score]:
        return self.score.prepare(*self.normed(query, key), block=block)

    def normed(self, query: Any, key: Any) -> tuple[Any, Any]:
        """Queries and keys normalised, in float32 or wider."""
        if self.kind == "l2":
            return unit(query), unit(key)
        return self._scaled(query, self.query_gain), self._scaled(key, self.key_gain)

    def _scaled(self, tensor: Any, gain: Any) -> Any:
        tensor = upcast(tensor)
        gain = ops.cast(ops.convert_to_tensor(gain), tensor.dtype)
        return tensor * ops.rsqrt(squared(tensor) / tensor.shape[-1] + self.epsilon) * gain


@register
class SoftCap(Wrapper):
    r"""A score that is bent so that it stays between -cap and cap.

    $$s'_{ij} = c \tanh(s_{ij} / c)$$

    Args:
        score: the score that is capped.
        cap: $c > 0$.

    Shapes: those of the inner score.

    Raises:
        ValueError: the cap is not positive.
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
        if not cap > 0:
            raise ValueError(f"`cap` must be positive. Received: cap={cap}.")
        self.cap = cap

    def call(self, query: Any, key: Any, *, block: Block) -> Any:
        return self.cap * ops.tanh(self.score(query, key, block=block) / self.cap)

    def prepare(self, query: Any, key: Any, *, block: Block) -> tuple[Any, Any, Score]:
        query, key, rest = self.score.prepare(query, key, block=block)
        return query, key, self if rest is self.score else SoftCap(rest, self.cap)


@register
class LearnedScale(Wrapper):
    r"""A score times a learned factor for each head, kept positive.

    $$s'_{ij} = e^{\theta_n} s_{ij}$$

    Args:
        score: the score that is scaled.
        scale: the first value of the factor.

    Shapes: those of the inner score; $\theta$ (N,).

    Raises:
        ValueError: the scale is not positive.
        TypeError: `score` is not a score.

    Example:
        >>> import numpy as np, limelight as ll
        >>> x = np.eye(2, dtype="float32")
        >>> print(np.array(ll.attention_weights(x, x, score=ll.scores.LearnedScale(ll.scores.Dot(scale=1.0), 2.0))).round(3))
        [[0.881 0.119]
         [0.119 0.881]]

    References:
        Henry et al. 2020, arXiv:2010.04245.
    """

    def __init__(self, score: Score, scale: float = 1.0, **kwargs: Any) -> None:
        super().__init__(score, **kwargs)
        if not scale > 0:
            raise ValueError(f"`scale` must be positive. Received: scale={scale}.")
        self.scale = scale

    def build(self, query_shape: tuple, key_shape: tuple) -> None:
        first = keras.initializers.Constant(math.log(self.scale))
        shape = (head_count(query_shape),)
        self.log_scale = self.add_weight(name="log_scale", shape=shape, initializer=first, autocast=False)
        super().build(query_shape, key_shape)

    def call(self, query: Any, key: Any, *, block: Block) -> Any:
        scale = block.align(ops.exp(ops.convert_to_tensor(self.log_scale)), "n")
        return ops.multiply(self.score(query, key, block=block), scale)
