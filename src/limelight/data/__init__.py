"""Load, clean, split, tokenize and batch labelled texts and series, without keras or a backend.

The names below are imported when they are first used, so that importing this package is quick.
"""

import importlib
from typing import TYPE_CHECKING, Any

from limelight.exceptions import DataError

if TYPE_CHECKING:
    from limelight.data.batching import Batch, LengthBatches, PlannedBatch, pad, padded_length
    from limelight.data.dataset import Dataset, Repair, describe
    from limelight.data.loaders import load
    from limelight.data.registry import NAMES
    from limelight.data.splitting import Split, split
    from limelight.data.tokenizing import Encoding, Tokenizer

__all__ = [
    "NAMES",
    "Batch",
    "DataError",
    "Dataset",
    "Encoding",
    "LengthBatches",
    "PlannedBatch",
    "Repair",
    "Split",
    "Tokenizer",
    "describe",
    "load",
    "pad",
    "padded_length",
    "split",
]

_MODULES = {
    "NAMES": "registry",
    "Batch": "batching",
    "Dataset": "dataset",
    "Encoding": "tokenizing",
    "LengthBatches": "batching",
    "PlannedBatch": "batching",
    "Repair": "dataset",
    "Split": "splitting",
    "Tokenizer": "tokenizing",
    "describe": "dataset",
    "load": "loaders",
    "pad": "batching",
    "padded_length": "batching",
    "split": "splitting",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'limelight.data' has no attribute {name!r}. It has: {', '.join(__all__)}.")
    value = getattr(importlib.import_module(f"limelight.data.{_MODULES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
