"""Attention for Keras 3: build it, train it, see it, test it, on any backend, at any length.

The names below are loaded when they are first used, so that `import limelight` costs nothing and brings in no backend.
"""

import importlib
from typing import Any

from limelight import backend

__version__ = "0.1.0"

# Each public name and the module it lives in. A name that equals its module's last part is the module itself.
_PUBLIC = {
    "attend": "limelight.attention",
    "weigh": "limelight.attention",
    "Dot": "limelight.scores",
    "Bilinear": "limelight.scores",
    "Additive": "limelight.scores",
    "Allowed": "limelight.masks",
    "Causal": "limelight.masks",
    "Padding": "limelight.masks",
    "Window": "limelight.masks",
    "Sum": "limelight.scores",
    "Bias": "limelight.scores",
    "Softmax": "limelight.normalizers",
    "layers": "limelight.layers",
    "capture": "limelight.observe",
    "Probe": "limelight.observe",
    "AttentionMap": "limelight.maps",
    "AttentionMaps": "limelight.maps",
    "data": "limelight.data",
    "evaluate": "limelight.evaluate",
    "plot": "limelight.plot",
    "report": "limelight.report",
}

# Those that hold numpy arrays and no tensors work without a backend.
_WITHOUT_BACKEND = {f"limelight.{part}" for part in ("analysis", "data", "evaluate", "maps", "plot", "report")}

__all__ = [*_PUBLIC, "__version__"]  # pyright: ignore[reportUnsupportedDunderAll]

backend.choose()


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'limelight' has no attribute {name!r}. It has: {', '.join(sorted(_PUBLIC))}.")
    if _PUBLIC[name] not in _WITHOUT_BACKEND:
        backend.require()
    module = importlib.import_module(_PUBLIC[name])
    value = module if _PUBLIC[name] == f"limelight.{name}" else getattr(module, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
