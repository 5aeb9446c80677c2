"""Keys and values kept from step to step."""

from typing import Any, NamedTuple, Self

from keras import ops

from limelight import masks


class KVCache(NamedTuple):
    r"""The keys and values of the steps so far, of a fixed size: a value that goes into a call and comes out of it.

    $$\mathrm{slot}(p) = p \bmod L$$

    A cache that is full forgets its oldest steps. Under a mask that reaches back fewer than L steps, such as `SlidingWindow(L - 1, 0)`,
    nothing is lost by that, however many steps a call brings: the window rolls. Otherwise give it the length of the longest
    sequence. It is a named tuple of tensors, so that `jax.jit`, `tf.function` and Keras's loops take it as it is.

    Args:
        key: (B, K, L, H).
        value: (B, K, L, V).
        positions: int32 (B, L), the position of the step in each slot, -1 in an empty one.
        length: int32 (B,), how many steps each example has seen.

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
        cls, batch: int, heads: int, size: int, key_dim: int, value_dim: int | None = None, dtype: Any = None
    ) -> Self:
        """A cache with nothing in it.

        Args:
            batch, heads: B and K.
            size: L, how many steps it holds.
            key_dim, value_dim: H and V; V is H when not given.
            dtype: of keys and values; Keras's floatx when not given.
        """
        for name, given in (("batch", batch), ("heads", heads), ("size", size), ("key_dim", key_dim)):
            if not isinstance(given, int) or given < 1:
                raise ValueError(f"`{name}` must be a positive integer. Received: {name}={given!r}.")
        width = key_dim if value_dim is None else value_dim
        return cls(
            ops.zeros((batch, heads, size, key_dim), dtype=dtype),
            ops.zeros((batch, heads, size, width), dtype=dtype),
            ops.full((batch, size), -1, dtype="int32"),
            ops.zeros((batch,), dtype="int32"),
        )

    def append(self, key: Any, value: Any, mask: Any = None) -> Self:
        """The cache with T more steps.

        Args:
            key: (B, K, T, H).
            value: (B, K, T, V).
            mask: bool (B, T), True where a step is real; the others are left out.

        Raises:
            ValueError: shapes other than those of the cache.
        """
        key, value = ops.convert_to_tensor(key), ops.convert_to_tensor(value)
        self._check(key, value)
        count = ops.shape(key)[2]
        size = self.positions.shape[1]
        real = ops.ones((1, count), dtype="bool") if mask is None else masks.boolean(mask, "`mask`")
        added = ops.sum(ops.cast(real, "int32"), axis=1)  # (B,)
        length = self.length + added
        # The position that each slot holds afterwards: the last one before the new length that belongs there.
        last = ops.expand_dims(length, 1) - 1
        positions = last - ops.mod(last - ops.arange(size, dtype="int32"), size)  # (B, L)
        rank = positions - ops.expand_dims(self.length, 1)  # which of the new steps that is, negative for an old one
        index = ops.clip(rank, 0, count - 1)
        if mask is not None:
            index = ops.take_along_axis(nth_real(real), index, axis=1)
        index = ops.expand_dims(ops.expand_dims(index, 1), -1)  # (B, 1, L, 1)
        fresh = ops.expand_dims(ops.expand_dims(rank >= 0, 1), -1)
        new_key, new_value = (
            ops.where(fresh, ops.take_along_axis(ops.cast(new, old.dtype), spread(index, old), axis=2), old)
            for new, old in ((key, self.key), (value, self.value))
        )
        return type(self)(new_key, new_value, ops.maximum(positions, -1), length)

    def mask(self) -> masks.Padding:
        """The mask that leaves out empty slots."""
        return masks.Slots(keys=self.positions >= 0)

    def continued(
        self, key: Any, value: Any, value_mask: Any, key_mask: Any, reach: int | None = None
    ) -> tuple[Self, Self, Any]:
        """The cache with the steps of one call appended, what its queries attend to, and where they stand.

        Args:
            key, value: (B, K, T, H) and (B, K, T, V), the steps that queries are made of too.
            value_mask, key_mask: bool (B, T), of the steps, or None.
            reach: how many positions back a query may see; None where nothing says so.

        Returns:
            The new cache; the keys and values that the queries see: the same, or, where the last of the steps take slots that
            the first of them look back to, the old slots and the new steps side by side; and the queries' positions (B, T).
        """
        given = [masks.boolean(mask, "a mask") for mask in (value_mask, key_mask) if mask is not None]
        real = None if not given else given[0] if len(given) == 1 else ops.logical_and(*given)
        cache = self.append(key, value, real)
        queries = cache.latest(ops.shape(key)[2], real)
        return cache, self.beside(key, value, queries, real) if self.rolls(key.shape[2], reach) else cache, queries

    def rolls(self, count: int | None, reach: int | None) -> bool:
        """Whether `count` new steps, as many as are not known for None, may take slots that one of them looks back to.

        A cache that holds no more than the reach is one for whole sequences, and does not roll.
        """
        size = self.positions.shape[1]
        if reach is None or (size is not None and size <= reach):
            return False
        return count is None or size is None or size < reach + count

    def beside(self, key: Any, value: Any, positions: Any, real: Any) -> Self:
        """The slots as they are and T new steps after them, L + T in all; steps that are not real stand at -1."""
        positions = ops.broadcast_to(positions, (ops.shape(self.positions)[0], ops.shape(key)[2]))
        positions = positions if real is None else ops.where(real, positions, -1)
        return type(self)(
            ops.concatenate([self.key, ops.cast(key, self.key.dtype)], axis=2),
            ops.concatenate([self.value, ops.cast(value, self.value.dtype)], axis=2),
            ops.concatenate([self.positions, ops.cast(positions, "int32")], axis=1),
            self.length,
        )

    def latest(self, count: Any, mask: Any = None) -> Any:
        """The positions of the last `count` steps that were appended, int32 (B, T), where `mask` is that of `append`."""
        if mask is None:
            return ops.expand_dims(self.length, 1) - count + ops.arange(count, dtype="int32")
        real = ops.cast(masks.boolean(mask, "`mask`"), "int32")
        before = self.length - ops.sum(real, axis=1)
        return ops.expand_dims(before, 1) + ops.cumsum(real, axis=1) - 1

    def _check(self, key: Any, value: Any) -> None:
        for name, new, old in (("key", key, self.key), ("value", value, self.value)):
            wanted = (*old.shape[:2], new.shape[2] if len(new.shape) == 4 else None, old.shape[3])
            if len(new.shape) != 4 or any(
                given is not None and size is not None and given != size
                for given, size in zip(new.shape, wanted, strict=True)
            ):
                raise ValueError(
                    f"New {name}s must have the shape (B, K, T, size) of the cache's, {tuple(old.shape)} but for T. "
                    f"Received: {tuple(new.shape)}."
                )


def nth_real(real: Any) -> Any:
    """The index of the first, second, ... True of each row, int32 (B, T); past the last one, T - 1."""
    count = ops.cumsum(ops.cast(real, "int32"), axis=1)  # (B, T)
    wanted = ops.arange(ops.shape(real)[1], dtype="int32")
    found = ops.sum(ops.cast(ops.expand_dims(count, 1) <= ops.expand_dims(wanted, 1), "int32"), axis=-1)
    return ops.minimum(found, ops.shape(real)[1] - 1)


def spread(index: Any, like: Any) -> Any:
    """An index (B, 1, L, 1) of the shape of keys or values (B, K, L, H)."""
    batch, heads, size, width = ops.shape(like)
    return ops.broadcast_to(index, (batch, heads, size, width))
