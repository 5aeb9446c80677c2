"""What becomes of a token that is taken away. No way is neutral, so that each says what it is."""

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Delete:
    """Tokens are cut out: what follows moves up, and positions change.

    Args:
        blank: What stands alone where nothing is left, such as the unknown token's number.
        name: What a report calls it.

    Example:
        >>> Delete()(np.array([7, 8, 9]), np.array([True, False, True]))
        array([7, 9])
    """

    blank: Any = 0
    name: str = "deleted"

    def __call__(self, example: np.ndarray, keep: np.ndarray) -> np.ndarray:
        """Return an example (T, ...) without the tokens at which `keep` (T,) is False."""
        if not keep.any():
            return np.full_like(example[:1], self.blank)
        return example[keep]


@dataclass(frozen=True)
class Replace:
    """Tokens are overwritten where they stand: positions stay, and the model may meet what it never met in training.

    Args:
        value: What is written: the number of the padding or of the unknown token, or for a series a value or a mean frame.
        name: What a report calls it, such as "replaced by padding".

    Example:
        >>> Replace(1, "replaced by the unknown token")(np.array([7, 8, 9]), np.array([True, False, True]))
        array([7, 1, 9])
    """

    value: Any
    name: str = "replaced"

    def __call__(self, example: np.ndarray, keep: np.ndarray) -> np.ndarray:
        """Return an example (T, ...) with the value at every place where `keep` (T,) is False."""
        changed = np.array(example)
        changed[~keep] = self.value
        return changed
