"""Keys and values of earlier steps, kept for decoding."""

from typing import Any, NamedTuple, Self

from keras import ops

from limelight import masks
from limelight.core.validation import check_positive_int


class KVCache(NamedTuple):
    r"""A key/value cache of a fixed size: a value that goes into a call, of which the call returns an updated one.

    $$\mathrm{slot}(p) = p \bmod L$$

    A full cache overwrites its oldest steps. Under a mask that looks back fewer than L steps, such as `SlidingWindow(L - 1, 0)`,
    nothing is lost by that, no matter how many steps a call adds: the cache rolls. Otherwise choose L as the length of the
    longest sequence. It is a named tuple of tensors, so that `jax.jit`, `tf.function` and Keras's loops accept it.

    Args:
        key: (B, K, L, H).
        value: (B, K, L, V).
        positions: Int32 (B, L), the position of the step in each slot, -1 in an empty one.
        length: Int32 (B,), the number of steps of each example so far.

    Example:
        >>> import numpy as np, limelight as ll
        >>> cache = ll.layers.KVCache.empty(1, 1, 4, 2)
        >>> for step in range(6):
        ...     cache = cache.append(np.full((1, 1, 1, 2), step, "float32"), np.zeros((1, 1, 1, 2), "float32"))
        >>> [int(position) for position in cache.positions[0]]
        [4, 5, 2, 3]

    References:
        Shazeer 2019, arXiv:1911.02150; Jiang et al. 2023, arXiv:2310.06825 (rolling).
    """

    key: Any
    value: Any
    positions: Any
    length: Any

    @classmethod
    def empty(
        cls,
        batch_size: Any,
        num_kv_heads: int,
        size: int,
        key_dim: int,
        value_dim: int | None = None,
        dtype: Any = None,
    ) -> Self:
        """Return an empty cache.

        Args:
            batch_size: B; a tensor where it is not known before a graph runs.
            num_kv_heads: K.
            size: L, the number of steps that it holds.
            key_dim: H.
            value_dim: V; H when not given.
            dtype: Dtype of keys and values; Keras's floatx when not given.

        Raises:
            ValueError: A size is not a positive integer.
        """
        sizes = {"num_kv_heads": num_kv_heads, "size": size, "key_dim": key_dim}
        if not ops.is_tensor(batch_size):
            sizes["batch_size"] = batch_size
        for name, number in sizes.items():
            check_positive_int(name, number)
        value_dim = key_dim if value_dim is None else value_dim
        return cls(
            ops.zeros((batch_size, num_kv_heads, size, key_dim), dtype=dtype),
            ops.zeros((batch_size, num_kv_heads, size, value_dim), dtype=dtype),
            ops.full((batch_size, size), -1, dtype="int32"),
            ops.zeros((batch_size,), dtype="int32"),
        )

    def append(self, key: Any, value: Any, mask: Any = None) -> Self:
        """Return the cache with T more steps.

        Args:
            key: (B, K, T, H).
            value: (B, K, T, V).
            mask: Bool (B, T), True where a step is real; the other steps are not stored.

        Raises:
            ValueError: The shapes differ from those of the cache.
        """
        key, value = ops.convert_to_tensor(key), ops.convert_to_tensor(value)
        self._check_shapes(key, value)
        num_steps = ops.shape(key)[2]
        size = self.positions.shape[1]
        real = ops.ones((1, num_steps), dtype="bool") if mask is None else masks.as_bool(mask, "`mask`")
        length = self.length + ops.sum(ops.cast(real, "int32"), axis=1)  # (B,)
        # The position that each slot holds afterwards: the last one before the new length that belongs there.
        last = ops.expand_dims(length, 1) - 1
        positions = last - ops.mod(last - ops.arange(size, dtype="int32"), size)  # (B, L)
        rank = positions - ops.expand_dims(self.length, 1)  # among the new steps; negative for an old one
        index = ops.clip(rank, 0, num_steps - 1)
        if mask is not None:
            index = ops.take_along_axis(_indices_of_true(real), index, axis=1)
        index = ops.expand_dims(ops.expand_dims(index, 1), -1)  # (B, 1, L, 1)
        is_new = ops.expand_dims(ops.expand_dims(rank >= 0, 1), -1)

        def update(old: Any, new: Any) -> Any:
            full_index = ops.broadcast_to(index, ops.shape(old))
            return ops.where(is_new, ops.take_along_axis(ops.cast(new, old.dtype), full_index, axis=2), old)

        return type(self)(update(self.key, key), update(self.value, value), ops.maximum(positions, -1), length)

    def mask(self) -> masks.Padding:
        """Return the mask that excludes empty slots."""
        return masks.CacheSlots(keys=self.positions >= 0)

    def update(
        self, key: Any, value: Any, value_mask: Any, key_mask: Any, max_lookback: int | None = None
    ) -> tuple[Self, Self, Any]:
        """Append the steps of one call whose queries are of the same steps.

        Args:
            key: (B, K, T, H).
            value: (B, K, T, V).
            value_mask: Bool (B, T), True where a step is real, or None.
            key_mask: Bool (B, T), AND-ed with `value_mask`, or None.
            max_lookback: Number of positions that a query may look back; None if it is not limited.

        Returns:
            The updated cache; the keys and values that the queries attend to; and the queries' positions (B, T). Keys and values
            are those of the updated cache, unless the last new steps overwrite slots that the first ones look back to: then
            they are the old slots followed by the new steps.
        """
        given = [masks.as_bool(mask, "a mask") for mask in (value_mask, key_mask) if mask is not None]
        real = None if not given else given[0] if len(given) == 1 else ops.logical_and(*given)
        cache = self.append(key, value, real)
        positions = cache.last_positions(ops.shape(key)[2], real)
        rolls = self.is_rolling(key.shape[2], max_lookback)
        return cache, self.concat(key, value, positions, real) if rolls else cache, positions

    def is_rolling(self, num_steps: int | None, max_lookback: int | None) -> bool:
        """Return True if new steps may overwrite slots that one of them looks back to.

        A cache that holds no more than `max_lookback` steps is one for whole sequences, and does not roll.

        Args:
            num_steps: Number of new steps; None if it is unknown.
            max_lookback: Number of positions that a query may look back; None if it is not limited.
        """
        size = self.positions.shape[1]
        if max_lookback is None or (size is not None and size <= max_lookback):
            return False
        return num_steps is None or size is None or size < max_lookback + num_steps

    def concat(self, key: Any, value: Any, positions: Any, mask: Any) -> Self:
        """Return the slots followed by T new steps, L + T in all; a step that is not real is zero, its position -1."""
        positions = ops.broadcast_to(positions, (ops.shape(self.positions)[0], ops.shape(key)[2]))
        if mask is not None:
            positions = ops.where(mask, positions, -1)
            key, value = zero_padding(mask, key, value)
        return type(self)(
            ops.concatenate([self.key, ops.cast(key, self.key.dtype)], axis=2),
            ops.concatenate([self.value, ops.cast(value, self.value.dtype)], axis=2),
            ops.concatenate([self.positions, ops.cast(positions, "int32")], axis=1),
            self.length,
        )

    def last_positions(self, num_steps: Any, mask: Any = None) -> Any:
        """Return the positions of the steps appended last, int32 (B, T).

        Args:
            num_steps: T.
            mask: Bool (B, T), as it was given to `append`.
        """
        if mask is None:
            return ops.expand_dims(self.length, 1) - num_steps + ops.arange(num_steps, dtype="int32")
        real = ops.cast(masks.as_bool(mask, "`mask`"), "int32")
        before = self.length - ops.sum(real, axis=1)
        return ops.expand_dims(before, 1) + ops.cumsum(real, axis=1) - 1

    def _check_shapes(self, key: Any, value: Any) -> None:
        for name, new, old in (("key", key, self.key), ("value", value, self.value)):
            expected = (*old.shape[:2], new.shape[2] if len(new.shape) == 4 else None, old.shape[3])
            if len(new.shape) != 4 or any(
                length is not None and size is not None and length != size
                for length, size in zip(new.shape, expected, strict=True)
            ):
                raise ValueError(
                    f"New {name}s must have the shape (B, K, T, size) of the cache's, {tuple(old.shape)} except for T. "
                    f"Received: {tuple(new.shape)}."
                )


def zero_padding(mask: Any, *steps: Any) -> list[Any]:
    """Return tensors (B, K, T, size) that are 0 where the mask (B, T) is False: a weight of 0 does not stop infinity or NaN."""
    is_real = ops.expand_dims(ops.expand_dims(mask, 1), -1)  # (B, 1, T, 1)
    return [ops.where(is_real, tensor, ops.zeros_like(tensor)) for tensor in steps]


def _indices_of_true(mask: Any) -> Any:
    """Return the index of the first, second, ... True of each row, int32 (B, T); past the last one, T - 1."""
    count = ops.cumsum(ops.cast(mask, "int32"), axis=1)  # (B, T)
    length = ops.shape(mask)[1]
    rank = ops.arange(length, dtype="int32")
    index = ops.sum(ops.cast(ops.expand_dims(count, 1) <= ops.expand_dims(rank, 1), "int32"), axis=-1)
    return ops.minimum(index, length - 1)
