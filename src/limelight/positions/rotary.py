"""Rotary positions: queries and keys turned by angles that grow with their position."""

import dataclasses
import math
from typing import Any

import numpy as np
from keras import ops

from limelight.core.block import Block
from limelight.core.component import Component, deserialize, register
from limelight.core.precision import upcast
from limelight.scores.score import Score
from limelight.scores.wrappers import Wrapper


class Scaling(Component):
    """How rotary frequencies are changed for inputs longer than those of the training. Abstract."""

    # What queries and keys are multiplied by, so that scores keep their spread.
    magnitude: float = 1.0

    def frequencies(self, base: float, size: int) -> np.ndarray:
        """The frequencies of the size / 2 pairs, in float64."""
        raise NotImplementedError


@register
@dataclasses.dataclass(frozen=True)
class LinearScaling(Scaling):
    r"""Position interpolation: positions divided by a factor.

    $$\omega'_f = \omega_f / c$$

    Args:
        factor: $c$, how many times longer inputs may be.

    Example:
        >>> import limelight as ll
        >>> float(ll.positions.LinearScaling(4.0).frequencies(10000.0, 2)[0])
        0.25

    References:
        Chen et al. 2023, arXiv:2306.15595.
    """

    factor: float

    def frequencies(self, base: float, size: int) -> np.ndarray:
        return plain_frequencies(base, size) / self.factor


@register
@dataclasses.dataclass(frozen=True)
class NTKScaling(Scaling):
    r"""A longer base, which leaves the fastest pair as it is and stretches the slowest by the factor.

    $$b' = b\, c^{H / (H - 2)}$$

    Args:
        factor: $c$, how many times longer inputs may be.

    Example:
        >>> import limelight as ll
        >>> [round(float(value), 4) for value in ll.positions.NTKScaling(4.0).frequencies(10000.0, 4)]
        [1.0, 0.0025]

    References:
        bloc97 2023, "NTK-aware scaled RoPE"; described in Peng et al. 2023, arXiv:2309.00071.
    """

    factor: float

    def frequencies(self, base: float, size: int) -> np.ndarray:
        if size < 4:
            raise ValueError(f"NTKScaling needs a rotated size of at least 4. Received: {size}. Use LinearScaling.")
        return plain_frequencies(base * self.factor ** (size / (size - 2)), size)


@register
@dataclasses.dataclass(frozen=True)
class YaRNScaling(Scaling):
    r"""YaRN: slow pairs interpolated, fast pairs left as they are, those between mixed, and the scores sharpened.

    $$\omega'_f = (1 - \gamma_f)\,\omega_f / c + \gamma_f\,\omega_f, \qquad \gamma_f = \mathrm{clip}\!\left(
    \frac{f_{slow} - f}{f_{slow} - f_{fast}}, 0, 1\right)$$

    where $f_{fast}$ and $f_{slow}$ are the pairs that turn `fast` and `slow` times in `trained` positions. Queries and keys are
    multiplied by $0.1 \ln c + 1$.

    Args:
        factor: $c$, how many times longer inputs may be.
        trained: the length of the training.
        fast, slow: the numbers of turns between which pairs are mixed.

    Example:
        >>> import limelight as ll
        >>> round(ll.positions.YaRNScaling(4.0, trained=2048).magnitude, 4)
        1.1386

    References:
        Peng et al. 2023, arXiv:2309.00071.
    """

    factor: float
    trained: int
    fast: float = 32.0
    slow: float = 1.0

    @property
    def magnitude(self) -> float:  # pyright: ignore[reportIncompatibleVariableOverride]
        """$0.1 \\ln c + 1$, and 1 for a factor that stretches nothing."""
        return 0.1 * math.log(self.factor) + 1.0 if self.factor > 1 else 1.0

    def frequencies(self, base: float, size: int) -> np.ndarray:
        def pair(turns: float) -> float:
            return size * math.log(self.trained / (turns * 2 * math.pi)) / (2 * math.log(base))

        first, last = max(math.floor(pair(self.fast)), 0), min(math.ceil(pair(self.slow)), size - 1)
        mixed = (np.arange(size // 2) - first) / max(last - first, 0.001)
        kept = 1 - np.clip(mixed, 0, 1)
        frequencies = plain_frequencies(base, size)
        return frequencies / self.factor * (1 - kept) + frequencies * kept


@register
class Rotary(Wrapper):
    r"""A score of queries and keys that are rotated by their positions, so that it depends on their distance.

    $$s_{ij} = \mathrm{score}(R_i q_i, R_j k_j)$$

    where $R_p$ turns the pair $f$ of features by the angle $p\,\omega_f$, $\omega_f = b^{-2f/H}$.

    Args:
        score: the score of the rotated vectors, such as `Dot()`.
        base: $b$.
        size: how many features are rotated, the first ones; all when not given. Even.
        scaling: `LinearScaling`, `NTKScaling` or `YaRNScaling` for inputs longer than those of the training.
        interleaved: whether features 2f and 2f + 1 form a pair, as in RoFormer and GPT-J; otherwise f and f + H/2, as in
            GPT-NeoX, Llama and Keras.

    Shapes: query (..., T, H), key (..., S, H), scores (..., T, S). Positions count from the end: the last query stands at the
    last key. Angles are computed in float32.

    Raises:
        ValueError: an odd size, more than there are features, or an unknown pairing.
        TypeError: `score` is not a score.

    Example:
        >>> import numpy as np, limelight as ll
        >>> x = np.ones((4, 2), "float32")
        >>> rotated = ll.attention_weights(x, x, score=ll.positions.Rotary(ll.scores.Dot()))
        >>> bool(np.allclose(np.array(rotated)[0, 0], np.array(rotated)[3, 3]))
        True

    References:
        Su et al. 2021, arXiv:2104.09864.
    """

    def __init__(
        self,
        score: Score,
        base: float = 10000.0,
        size: int | None = None,
        scaling: Scaling | None = None,
        interleaved: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(score, **kwargs)
        if size is not None and (not isinstance(size, int) or size < 2 or size % 2):
            raise ValueError(f"`size` must be an even positive integer or None. Received: size={size!r}.")
        self.base, self.size, self.scaling, self.interleaved = base, size, deserialize(scaling), interleaved

    def build(self, query_shape: tuple, key_shape: tuple) -> None:
        for name, shape in (("query", query_shape), ("key", key_shape)):
            size = shape[-1] if self.size is None else self.size
            if size % 2 or size > shape[-1]:
                raise ValueError(
                    f"Rotary turns an even number of features, at most all. Received: size={size} for a {name} of size "
                    f"{shape[-1]}. Give size={min(size, shape[-1]) // 2 * 2}."
                )
        super().build(query_shape, key_shape)

    def call(self, query: Any, key: Any, *, block: Block) -> Any:
        return self.score(*self.turned(query, key, block=block), block=block)

    def prepare(self, query: Any, key: Any, *, block: Block) -> tuple[Any, Any, Score]:
        return self.score.prepare(*self.turned(query, key, block=block), block=block)

    def turned(self, query: Any, key: Any, *, block: Block) -> tuple[Any, Any]:
        """Queries and keys rotated, in float32 or wider."""
        size = query.shape[-1] if self.size is None else self.size
        scaling = self.scaling
        frequencies = plain_frequencies(self.base, size) if scaling is None else scaling.frequencies(self.base, size)
        magnitude = 1.0 if scaling is None else scaling.magnitude
        frequencies = ops.convert_to_tensor(frequencies.astype("float32"))
        queries = self._rotated(query, angles(block.query_positions(), frequencies), magnitude)
        return queries, self._rotated(key, angles(block.key_positions(), frequencies, keys=True), magnitude)

    def _rotated(self, tensor: Any, angle: Any, magnitude: float) -> Any:
        tensor = upcast(tensor)
        size = 2 * angle.shape[-1]
        turning, kept = tensor[..., :size], tensor[..., size:]
        cosine, sine = (ops.cast(magnitude * wave(angle), tensor.dtype) for wave in (ops.cos, ops.sin))
        if not self.interleaved:
            first, second = turning[..., : size // 2], turning[..., size // 2 :]
            turned = ops.concatenate([first * cosine - second * sine, second * cosine + first * sine], axis=-1)
        else:
            first, second = turning[..., 0::2], turning[..., 1::2]
            turned = ops.stack([first * cosine - second * sine, second * cosine + first * sine], axis=-1)
            turned = ops.reshape(turned, ops.shape(turning))
        return ops.concatenate([turned, kept], axis=-1) if kept.shape[-1] else turned


def plain_frequencies(base: float, size: int) -> np.ndarray:
    """The frequencies of the size / 2 pairs, from 1 down to nearly 1 / base."""
    return base ** (-np.arange(0, size, 2, dtype="float64") / size)


def angles(positions: Any, frequencies: Any, keys: bool = False) -> Any:
    """The angle of each position and frequency, (..., t, f) or, for the keys of a tile, (..., s, f)."""
    positions = ops.swapaxes(positions, -1, -2) if keys else positions
    return ops.cast(positions, "float32") * frequencies
