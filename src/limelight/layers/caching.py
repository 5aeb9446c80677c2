"""What a multi-head layer keeps from step to step: heads, or one latent in their place."""

from typing import Any

import keras
from keras import ops

from limelight import masks
from limelight.layers.cache import KVCache
from limelight.layers.override import Overridable
from limelight.layers.policies import policy_of
from limelight.layers.projections import Layout


class Caching(Overridable):
    """A multi-head layer that decodes with a cache, and whose keys and values may come from a latent. Abstract."""

    num_heads: int
    num_kv_heads: int
    key_dim: int
    value_dim: int
    latent_dim: int | None
    _sliding_window: int | None
    _query_dense: Any
    _key_dense: Any
    _value_dense: Any
    _output_dense: Any

    @property
    def query_dense(self) -> Any:
        """The projection of the query, (D, N, H)."""
        return self._query_dense

    @property
    def key_dense(self) -> Any:
        """The projection of the key, (D, K, H)."""
        return self._key_dense

    @property
    def value_dense(self) -> Any:
        """The projection of the value, (D, K, V)."""
        return self._value_dense

    @property
    def output_dense(self) -> Any:
        """The projection of the heads' outputs, (N, V, D)."""
        return self._output_dense

    def empty_cache(self, batch: int, size: int) -> KVCache:
        """A cache with nothing in it, for calls of this layer.

        Args:
            batch: B.
            size: how many steps it holds: all of the longest sequence, or one more than the layer's mask reaches back, as many
                as `SlidingWindow(size - 1, 0)` permits.

        Example:
            >>> import limelight as ll
            >>> cache = ll.layers.MultiHeadAttention(8, 16, num_kv_heads=2).empty_cache(1, 100)
            >>> tuple(cache.key.shape)
            (1, 2, 100, 16)
        """
        if self.latent_dim is not None:
            return KVCache.empty(batch, 1, size, self.latent_dim, 0, self.compute_dtype)
        return KVCache.empty(batch, self.num_kv_heads, size, self.key_dim, self.value_dim, self.compute_dtype)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        # On the way to `call` each argument is converted by itself: there one that was given twice is two.
        value = args[1] if len(args) > 1 else kwargs.get("value")
        if self.latent_dim is not None and value is not None:
            if len(args) > 2 and args[2] is value:
                args = (*args[:2], None, *args[3:])
            elif kwargs.get("key") is value:
                kwargs = {**kwargs, "key": None}
        return super().__call__(*args, **kwargs)

    def _build_latent(self, key_shape: tuple, value_shape: tuple) -> tuple[tuple, tuple]:
        """Build the projection into the latent, where there is one, and return the shapes that heads are projected from."""
        if self.latent_dim is None:
            return key_shape, value_shape
        policy = policy_of(self, "latent")
        self._latent_dense = keras.layers.Dense(self.latent_dim, use_bias=False, dtype=policy, name="latent")
        policy = policy_of(self, "latent_norm")
        self._latent_norm = keras.layers.RMSNormalization(dtype=policy, name="latent_norm")
        latent = (*value_shape[:-1], self.latent_dim)
        self._latent_dense.build(value_shape)
        self._latent_norm.build(latent)
        return latent, latent

    def _latent_steps(self, value: Any, key: Any) -> tuple[Any, Any]:
        """What values and keys are projected from."""
        if self.latent_dim is None:
            return value, value if key is None else key
        if key is not None and key is not value:
            raise ValueError(
                "With `latent_dim` keys and values are projected from one latent. Received: a `key` that is not the `value`. "
                "Leave `key` out."
            )
        latent = self._latent_norm(self._latent_dense(value))
        return latent, latent

    def _remembered(
        self, cache: KVCache, layout: Layout, value: Any, key: Any, value_mask: Any, key_mask: Any, attention_mask: Any
    ) -> tuple[Any, Any, KVCache, masks.Mask, dict[str, Any]]:
        """Keys (B, K, S, H) and values (B, K, S, V) of a cache and the new steps, the new cache, a mask, and all positions."""
        if len(layout.batch) > 1 or len(layout.axes) > 1 or self.overridden or attention_mask is not None:
            raise ValueError(
                "A call with `cache` takes (B, T, D) and no `attention_mask`, of which there is no telling how it lies on the "
                "slots. Give the layer a mask of positions, such as mask=limelight.masks.Causal(), and padding as `value_mask`."
            )
        if self.latent_dim is None:
            new = (layout.heads_first(self._key_dense(key)), layout.heads_first(self._value_dense(value)))
        else:
            latent = ops.expand_dims(value, 1)  # (B, 1, T, C)
            new = (latent, latent[..., :0])
        cache, seen, queries = cache.continued(*new, value_mask, key_mask, self._reach())
        positions = {"query_positions": queries, "key_positions": seen.positions}
        if self.latent_dim is None:
            return seen.key, seen.value, cache, seen.mask(), positions
        steps = ops.squeeze(seen.key, 1)
        heads = (layout.heads_first(dense(steps)) for dense in (self._key_dense, self._value_dense))
        return *heads, cache, seen.mask(), positions

    def _slots(self, cache: KVCache, count: int | None) -> int | None:
        """How many keys `count` steps with a cache see."""
        size = cache.key.shape[2]
        if not cache.rolls(count, self._reach()):
            return size
        return None if count is None or size is None else size + count

    def _window(self) -> masks.Mask | None:
        """The mask of `sliding_window`."""
        width = self._sliding_window
        return None if width is None else masks.SlidingWindow(width - 1, width - 1)

    def _reach(self) -> int | None:
        """How many positions before its own a query may see; None where neither mask nor window says so."""
        mask = masks.both(self.mask, self._window())
        return None if mask is None else mask.max_lookback()
