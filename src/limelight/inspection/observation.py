"""What was seen of one attention while a model ran: tensors of the backend, and plain numbers."""

import dataclasses
import functools
from typing import Any

import keras
import numpy as np
from keras import ops

from limelight.maps import QKSource, StatisticsSource, StoredMask, WeightSource
from limelight.maps.sources import Source


@dataclasses.dataclass(frozen=True, eq=False)
class Observation:
    r"""One attention as an adapter reports it: its question, or its weights where only those can be had.

    The question stands for $\mathrm{softmax}(\mathrm{cap}(c\,q_i \cdot k_j) + b_{ij})$ over permitted keys. Heads are axis -3; an
    attention without heads may leave the axis out.

    Args:
        query: (B, T, H) or (B, N, T, H).
        key: (B, S, H) or (B, K, S, H), where K divides N.
        scale: the factor $c$, a number or a scalar tensor; $1/\sqrt{H}$ where None.
        vector: (H,), for the additive score $c\,v^\top \tanh(q_i + k_j)$.
        softcap: scores pass through $m \tanh(s / m)$.
        bias: added to the scores, broadcastable to (B, N, T, S).
        weights: (B, T, S) or (B, N, T, S), in place of all the above.
        keys: bool (B, S), True where a key is real.
        queries: bool (B, T), True where a query is real.
        array: bool, broadcastable to (B, N, T, S), True where attending is allowed.
        behind, ahead: how many keys before and after its own position a query reaches; `ahead=0` is causal.
        align: "start" where queries and keys start together, "end" where they end together.

    Raises:
        ValueError: neither a question nor weights, or both.
    """

    query: Any = None
    key: Any = None
    scale: Any = None
    vector: Any = None
    softcap: float | None = None
    bias: Any = None
    weights: Any = None
    keys: Any = None
    queries: Any = None
    array: Any = None
    left: int | None = None
    right: int | None = None
    align: str = "start"

    def __post_init__(self) -> None:
        if (self.weights is None) == (self.query is None or self.key is None):
            raise ValueError("An observation must have either `query` and `key`, or `weights`.")
        if self.align not in ("start", "end"):
            raise ValueError(f'`align` must be "start" or "end". Received: align={self.align!r}.')

    def laid_out(self) -> "Observation":
        """The same with an axis for heads, and every mask and bias of the rank of the weights."""
        seen = self
        whole = seen.query if seen.weights is None else seen.weights
        if len(whole.shape) == 3:
            with_heads = {
                name: ops.expand_dims(value, -3)
                for name in ("query", "key", "weights")
                if (value := getattr(seen, name)) is not None
            }
            seen = dataclasses.replace(seen, **with_heads)
            whole = seen.query if seen.weights is None else seen.weights
        rank = len(whole.shape)
        filled = {name: raised(getattr(seen, name), rank) for name in ("bias", "array")}
        scale = whole.shape[-1] ** -0.5 if seen.weights is None and seen.scale is None else seen.scale
        return dataclasses.replace(seen, **filled, scale=scale)

    def answered(self) -> "Observation":
        """The weights that a laid out question gives, computed by the backend."""
        query, key = (ops.cast(one, "float32") for one in (self.query, self.key))
        groups = query.shape[-3] // key.shape[-3]
        key = ops.repeat(key, groups, axis=-3) if groups > 1 else key
        if self.vector is None:
            scores = ops.matmul(query, ops.swapaxes(key, -1, -2))
        else:
            scores = ops.sum(ops.tanh(ops.expand_dims(query, -2) + ops.expand_dims(key, -3)) * self.vector, axis=-1)
        scores = scores * ops.cast(self.scale, "float32")
        scores = scores if self.softcap is None else self.softcap * ops.tanh(scores / self.softcap)
        scores = scores if self.bias is None else scores + ops.cast(self.bias, "float32")
        allowed = self.permitted(ops.shape(scores)[-2], ops.shape(scores)[-1])
        if allowed is None:
            return Observation(weights=ops.softmax(scores))
        weights = ops.softmax(ops.where(allowed, scores, -1e30))
        return Observation(weights=ops.where(allowed, weights, 0.0))

    def permitted(self, rows: Any, columns: Any) -> Any:
        """All permissions of a laid out question as one array that broadcasts to the weights; None where all is permitted."""
        parts = []
        if self.keys is not None:
            parts.append(ops.cast(self.keys, "bool")[..., None, None, :])
        if self.queries is not None:
            parts.append(ops.cast(self.queries, "bool")[..., None, :, None])
        if self.array is not None:
            parts.append(ops.cast(self.array, "bool"))
        shift = columns - rows if self.align == "end" else 0
        distance = ops.expand_dims(ops.arange(columns), 0) - ops.expand_dims(ops.arange(rows) + shift, 1)
        if self.right is not None:
            parts.append(distance <= self.right)
        if self.left is not None:
            parts.append(distance >= -self.left)
        return functools.reduce(ops.logical_and, parts) if parts else None

    def split(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """The tensors, which travel through a compiled model, and the numbers, which stay here."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        fields = {name: value for name, value in fields.items() if value is not None}
        tensors = {name: ops.convert_to_tensor(value) for name, value in fields.items() if not is_number(value)}
        return tensors, {name: value for name, value in fields.items() if is_number(value)}


def raised(tensor: Any, rank: int) -> Any:
    """A mask or bias with axes of length 1 for heads and batches that it lacks: (T, S), (B, T, S) or (B, N, T, S)."""
    if tensor is None:
        return None
    tensor = ops.convert_to_tensor(tensor)
    if len(tensor.shape) == rank - 1:
        return ops.expand_dims(tensor, -3)
    for _ in range(rank - len(tensor.shape)):
        tensor = ops.expand_dims(tensor, 0)
    return tensor


def is_number(value: Any) -> bool:
    """Whether a value is known before a model runs."""
    return isinstance(value, (bool, int, float, str))


def read(tensors: dict[str, Any], numbers: dict[str, Any]) -> Source:
    """A map's source from the arrays that a model gave, and the numbers that were kept."""
    arrays = {name: array(value) for name, value in tensors.items()}
    if "entropy" in arrays:
        statistics: dict[str, Any] = arrays
        return StatisticsSource(**statistics)
    fields = {**numbers, **arrays}
    masks = {name: None if name not in arrays else arrays[name].astype(bool) for name in ("keys", "queries", "array")}
    whole = arrays.get("weights", arrays.get("query"))
    if whole is None:
        raise ValueError("An observation must have either `query` and `key`, or `weights`.")
    rows, columns = whole.shape[-2], whole.shape[-1] if "weights" in arrays else arrays["key"].shape[-2]
    allowed = StoredMask(
        **masks,
        left=numbers.get("left"),
        right=numbers.get("right"),
        shift=columns - rows if fields.get("align") == "end" else 0,
    )
    if "weights" in arrays:
        return WeightSource(arrays["weights"], allowed)
    given = {name: arrays[name] for name in ("query", "key", "vector", "bias") if name in arrays}
    return QKSource(**given, scale=float(fields["scale"]), softcap=fields.get("softcap"), allowed=allowed)


def array(value: Any) -> np.ndarray:
    """A numpy array of a tensor, in a dtype that numpy has of itself."""
    found = value if isinstance(value, np.ndarray) else keras.ops.convert_to_numpy(value)
    return found.astype(np.float32) if found.dtype.kind == "V" or found.dtype.name == "bfloat16" else found
