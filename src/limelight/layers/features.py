"""Features for linear attention: functions that are never negative, whose products stand in for the exponential."""

from typing import Any

import keras
import numpy as np
from keras import ops

from limelight.core.component import LearnedComponent, register


class Features(LearnedComponent):
    """The features of queries or keys. Abstract.

    It is called with a tensor (B, N, T, H) in float32 or wider, for keys the mask (B, 1, S, 1) or None, and `keys`, and returns
    features (B, N, T, M) that are not negative.
    """


@register
class EluFeatures(Features):
    r"""$\phi(x) = \mathrm{elu}(x) + 1$.

    References:
        Katharopoulos et al. 2020, arXiv:2006.16236.
    """

    def build(self, shape: tuple, *others: tuple) -> None:
        pass

    def call(self, tensor: Any, permitted: Any, *, keys: bool) -> Any:
        return ops.elu(tensor) + 1.0


@register
class ReluFeatures(Features):
    r"""$\phi(x) = \max(x, 0) + \epsilon$.

    Args:
        epsilon: $\epsilon$, so that no query is left without weights.

    References:
        Choromanski et al. 2021, arXiv:2009.14794.
    """

    def __init__(self, epsilon: float = 1e-3, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.epsilon = epsilon

    def build(self, shape: tuple, *others: tuple) -> None:
        pass

    def call(self, tensor: Any, permitted: Any, *, keys: bool) -> Any:
        return ops.relu(tensor) + self.epsilon


@register
class FavorFeatures(Features):
    r"""Performer's positive orthogonal random features, whose products approximate the exponential of the scaled dot product.

    $$\phi(x)_f = \exp(\omega_f \cdot \hat x - \lVert \hat x \rVert^2 / 2), \qquad \hat x = x / H^{1/4}$$

    Args:
        count: how many features; $H \ln H$, rounded up, when not given.
        seed: of the draw.

    References:
        Choromanski et al. 2021, arXiv:2009.14794.
    """

    def __init__(self, count: int | None = None, seed: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if count is not None and (not isinstance(count, int) or count < 1):
            raise ValueError(f"`count` must be a positive integer or None. Received: count={count!r}.")
        self.count, self.seed = count, seed

    def build(self, shape: tuple, *others: tuple) -> None:
        size = shape[-1]
        count = int(np.ceil(size * np.log(max(size, 2)))) if self.count is None else self.count
        self.directions = self.add_weight(
            name="directions",
            shape=(size, count),
            initializer=Orthogonal(self.seed),
            trainable=False,
            autocast=False,
        )

    def call(self, tensor: Any, permitted: Any, *, keys: bool) -> Any:
        tensor = tensor * tensor.shape[-1] ** -0.25
        along = ops.matmul(tensor, self.directions) - ops.sum(tensor * tensor, axis=-1, keepdims=True) / 2
        # A factor of each query, or of all keys of a head, cancels in the quotient: here it keeps the exponential in range.
        seen = along if permitted is None else ops.where(permitted, along, -3.0e38)
        peak = ops.stop_gradient(ops.max(seen, axis=(-2, -1) if keys else -1, keepdims=True))
        along = along - ops.where(peak <= -3.0e38, 0.0, peak)
        return ops.exp(along if permitted is None else ops.where(permitted, along, 0.0)) + 1e-10


@register
class Orthogonal(keras.initializers.Initializer):
    """Random directions (size, count): orthogonal within each `size` of them, as long as normal vectors are.

    Args:
        seed: of the draw; a new one each time when not given.
    """

    def __init__(self, seed: int | None = None) -> None:
        self.seed = seed

    def __call__(self, shape: tuple, dtype: Any = None) -> Any:
        size, count = shape
        seed = keras.random.randint((), 0, 2**31 - 1, dtype="int32") if self.seed is None else self.seed
        random = np.random.default_rng(int(ops.convert_to_numpy(seed)))
        blocks = [np.linalg.qr(random.normal(size=(size, size)))[0] for _ in range(-(-count // size))]
        lengths = np.linalg.norm(random.normal(size=(count, size)), axis=1)
        return ops.convert_to_tensor(np.concatenate(blocks, axis=1)[:, :count] * lengths, dtype=dtype)

    def get_config(self) -> dict[str, Any]:
        return {"seed": self.seed}


FEATURES: dict[str, type[Features]] = {"elu": EluFeatures, "relu": ReluFeatures, "favor": FavorFeatures}
