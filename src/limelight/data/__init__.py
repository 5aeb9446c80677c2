"""Load, clean, split, tokenize and batch texts, pairs of texts and series, without keras or a backend.

The names below are imported when they are first used, so that importing this package is quick.
"""

import importlib
from typing import TYPE_CHECKING, Any

from limelight.exceptions import DataError

if TYPE_CHECKING:
    from limelight.data.batching import Batch, LengthBatches, PlannedBatch, pad, padded_length
    from limelight.data.dataset import Dataset, Repair
    from limelight.data.description import describe
    from limelight.data.loaders import load
    from limelight.data.pairs import Pairs, load_pairs
    from limelight.data.panel import Panel, load_panel
    from limelight.data.registry import NAMES
    from limelight.data.splitting import Split, split
    from limelight.data.textstream import TextStream
    from limelight.data.tokenizing import Encoding, Tokenizer

__all__ = [
    "NAMES",
    "Batch",
    "DataError",
    "Dataset",
    "Encoding",
    "LengthBatches",
    "Pairs",
    "Panel",
    "PlannedBatch",
    "Repair",
    "Split",
    "TextStream",
    "Tokenizer",
    "describe",
    "load",
    "load_pairs",
    "load_panel",
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
    "Pairs": "pairs",
    "Panel": "panel",
    "PlannedBatch": "batching",
    "Repair": "dataset",
    "Split": "splitting",
    "TextStream": "textstream",
    "Tokenizer": "tokenizing",
    "describe": "description",
    "load": "loaders",
    "load_pairs": "pairs",
    "load_panel": "panel",
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
