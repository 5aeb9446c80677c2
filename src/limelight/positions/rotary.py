"""Rotary position embeddings and their scaling for long contexts."""

import dataclasses
import math
from typing import Any

import numpy as np
from keras import ops

from limelight.core.block import Block
from limelight.core.component import Component, deserialize, register
from limelight.core.precision import upcast
from limelight.core.shapes import size_of
from limelight.scores.score import Score, prepare_score
from limelight.scores.wrappers import Wrapper


class Scaling(Component):
    """Base class of scalings of rotary frequencies, for inputs longer than those of the training."""

    # The factor of rotated queries and keys.
    magnitude: float = 1.0

    def frequencies(self, base: float, size: int) -> np.ndarray:
        """Return the frequencies of the size / 2 pairs, in float64."""
        raise NotImplementedError


@register
@dataclasses.dataclass(frozen=True)
class LinearScaling(Scaling):
    r"""Position interpolation: positions are divided by a factor.

    $$\omega'_f = \omega_f / c$$

    Args:
        factor: $c$, the length of inputs over that of the training.

    Example:
        >>> import limelight as ll
        >>> float(ll.positions.LinearScaling(4.0).frequencies(10000.0, 2)[0])
        0.25

    References:
        Chen et al. 2023, arXiv:2306.15595.
    """

    factor: float

    def frequencies(self, base: float, size: int) -> np.ndarray:
        return rotary_frequencies(base, size) / self.factor


@register
@dataclasses.dataclass(frozen=True)
class NTKScaling(Scaling):
    r"""NTK-aware scaling: a larger base, which keeps the highest frequency and divides the lowest by the factor.

    $$b' = b\, c^{H / (H - 2)}$$

    Args:
        factor: $c$, the length of inputs over that of the training.

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
        return rotary_frequencies(base * self.factor ** (size / (size - 2)), size)


@register
@dataclasses.dataclass(frozen=True)
class YaRNScaling(Scaling):
    r"""YaRN: low frequencies are interpolated, high ones kept, those between are mixed, and scores are scaled up.

    $$\omega'_f = (1 - \gamma_f)\,\omega_f / c + \gamma_f\,\omega_f, \qquad \gamma_f = \mathrm{clip}\!\left(
    \frac{f_{slow} - f}{f_{slow} - f_{fast}}, 0, 1\right)$$

    where $f_{fast}$ and $f_{slow}$ are the pairs with `beta_fast` and `beta_slow` rotations in `original_length` positions.
    Queries and keys are multiplied by $0.1 \ln c + 1$.

    Args:
        factor: $c$, the length of inputs over that of the training.
        original_length: The length of inputs in the training (`original_max_position_embeddings` elsewhere).
        beta_fast: The number of rotations from which a frequency is kept.
        beta_slow: The number of rotations up to which a frequency is interpolated.

    Example:
        >>> import limelight as ll
        >>> round(ll.positions.YaRNScaling(4.0, original_length=2048).magnitude, 4)
        1.1386

    References:
        Peng et al. 2023, arXiv:2309.00071.
    """

    factor: float
    original_length: int
    beta_fast: float = 32.0
    beta_slow: float = 1.0

    @property
    def magnitude(self) -> float:  # pyright: ignore[reportIncompatibleVariableOverride]
        """$0.1 \\ln c + 1$, or 1 if $c \\le 1$."""
        return 0.1 * math.log(self.factor) + 1.0 if self.factor > 1 else 1.0

    def frequencies(self, base: float, size: int) -> np.ndarray:
        def find_pair(rotations: float) -> float:
            return size * math.log(self.original_length / (rotations * 2 * math.pi)) / (2 * math.log(base))

        first, last = max(math.floor(find_pair(self.beta_fast)), 0), min(math.ceil(find_pair(self.beta_slow)), size - 1)
        ramp = np.clip((np.arange(size // 2) - first) / max(last - first, 0.001), 0, 1)
        frequencies = rotary_frequencies(base, size)
        return frequencies / self.factor * ramp + frequencies * (1 - ramp)


@register
class Rotary(Wrapper):
    r"""Rotary position embeddings (RoPE): a score of queries and keys that are rotated by angles proportional to their positions.

    $$s_{ij} = \mathrm{score}(R_i q_i, R_j k_j)$$

    where $R_p$ rotates pair $f$ of features by the angle $p\,\omega_f$, $\omega_f = b^{-2f/H}$. A dot product of rotated vectors
    depends on positions only through their distance.

    Args:
        score: The score of the rotated vectors, such as `Dot()`.
        base: $b$.
        rotary_dim: The even number of features to rotate, the first ones; None for all.
        scaling: `LinearScaling`, `NTKScaling` or `YaRNScaling`, for inputs longer than those of the training.
        interleaved: If True, features 2f and 2f + 1 form a pair, as in RoFormer and GPT-J; otherwise f and f + H/2, as in
            GPT-NeoX, Llama and Keras.

    Shapes: query (..., T, H), key (..., S, H), scores (..., T, S). By default the last query is at the
    position of the last key. Angles are computed in float32.

    Raises:
        ValueError: `rotary_dim` is not even and positive, or is more than the number of features; or it is None and queries and
            keys differ in size.
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
        rotary_dim: int | None = None,
        scaling: Scaling | None = None,
        interleaved: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(score, **kwargs)
        if rotary_dim is not None and (not isinstance(rotary_dim, int) or rotary_dim < 2 or rotary_dim % 2):
            raise ValueError(
                f"`rotary_dim` must be an even positive integer or None. Received: rotary_dim={rotary_dim!r}."
            )
        self.base, self.rotary_dim = base, rotary_dim
        self.scaling, self.interleaved = deserialize(scaling), interleaved

    def build(self, query_shape: tuple, key_shape: tuple) -> None:
        if self.rotary_dim is None and query_shape[-1] != key_shape[-1]:
            raise ValueError(
                "Rotary rotates as many features of queries as of keys. Received: query size "
                f"{query_shape[-1]}, key size {key_shape[-1]}. Use rotary_dim={min(query_shape[-1], key_shape[-1]) // 2 * 2}."
            )
        for name, shape in (("query", query_shape), ("key", key_shape)):
            size = shape[-1] if self.rotary_dim is None else self.rotary_dim
            if size % 2 or size > shape[-1]:
                raise ValueError(
                    f"Rotary rotates an even number of features, at most all. Received: rotary_dim={size} for a {name} of size "
                    f"{shape[-1]}. Use rotary_dim={min(size, shape[-1]) // 2 * 2}."
                )
        super().build(query_shape, key_shape)

    def call(self, query: Any, key: Any, *, block: Block) -> Any:
        return self.score(*self.rotate(query, key, block=block), block=block)

    def prepare(self, query: Any, key: Any, *, block: Block) -> tuple[Any, Any, Score]:
        return prepare_score(self.score, *self.rotate(query, key, block=block), block=block)

    def rotate(self, query: Any, key: Any, *, block: Block) -> tuple[Any, Any]:
        """Rotate queries and keys, in float32 or wider."""
        size = size_of(query, -1) if self.rotary_dim is None else self.rotary_dim
        scaling = self.scaling
        frequencies = rotary_frequencies(self.base, size) if scaling is None else scaling.frequencies(self.base, size)
        magnitude = 1.0 if scaling is None else scaling.magnitude
        frequencies = ops.convert_to_tensor(frequencies.astype("float32"))
        query = self._rotate(query, rotary_angles(block.query_positions(), frequencies), magnitude)
        return query, self._rotate(key, rotary_angles(block.key_positions(), frequencies, keys=True), magnitude)

    def _rotate(self, tensor: Any, angles: Any, magnitude: float) -> Any:
        tensor = upcast(tensor)
        size = 2 * size_of(angles, -1)
        rotated, rest = tensor[..., :size], tensor[..., size:]
        cosine, sine = (ops.cast(magnitude * function(angles), tensor.dtype) for function in (ops.cos, ops.sin))
        if not self.interleaved:
            first, second = rotated[..., : size // 2], rotated[..., size // 2 :]
            rotated = ops.concatenate([first * cosine - second * sine, second * cosine + first * sine], axis=-1)
        else:
            shape = ops.shape(rotated)
            first, second = rotated[..., 0::2], rotated[..., 1::2]
            rotated = ops.stack([first * cosine - second * sine, second * cosine + first * sine], axis=-1)
            rotated = ops.reshape(rotated, shape)
        return ops.concatenate([rotated, rest], axis=-1) if size_of(rest, -1) else rotated


def rotary_frequencies(base: float, size: int) -> np.ndarray:
    """Return the frequencies of the size / 2 pairs, from 1 down to nearly 1 / base, in float64."""
    return base ** (-np.arange(0, size, 2, dtype="float64") / size)


def rotary_angles(positions: Any, frequencies: Any, keys: bool = False) -> Any:
    """Return the angle of each position and frequency: (..., t, f) from (..., t, 1), or (..., s, f) for keys (..., 1, s)."""
    positions = ops.swapaxes(positions, -1, -2) if keys else positions
    return ops.cast(positions, "float32") * frequencies
