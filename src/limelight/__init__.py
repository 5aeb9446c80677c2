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
    "survey": "limelight.attention",
    "Survey": "limelight.surveying",
    "explain_path": "limelight.attention",
    "Additive": "limelight.scores",
    "Bias": "limelight.scores",
    "Bilinear": "limelight.scores",
    "Cosine": "limelight.scores",
    "Distance": "limelight.scores",
    "Dot": "limelight.scores",
    "Location": "limelight.scores",
    "Normed": "limelight.scores",
    "Scaled": "limelight.scores",
    "SoftCap": "limelight.scores",
    "Sum": "limelight.scores",
    "ALiBi": "limelight.positions",
    "Gaussian": "limelight.positions",
    "LinearScaling": "limelight.positions",
    "NTKScaling": "limelight.positions",
    "RelativeBias": "limelight.positions",
    "Rotary": "limelight.positions",
    "Shaw": "limelight.positions",
    "TransformerXL": "limelight.positions",
    "YaRNScaling": "limelight.positions",
    "Allowed": "limelight.masks",
    "Blocks": "limelight.masks",
    "Causal": "limelight.masks",
    "Dilated": "limelight.masks",
    "Padding": "limelight.masks",
    "Prefix": "limelight.masks",
    "Segments": "limelight.masks",
    "Where": "limelight.masks",
    "Window": "limelight.masks",
    "Entmax": "limelight.normalizers",
    "Gumbel": "limelight.normalizers",
    "Hard": "limelight.normalizers",
    "Monotonic": "limelight.normalizers",
    "Sigmoid": "limelight.normalizers",
    "Sink": "limelight.normalizers",
    "Softmax": "limelight.normalizers",
    "Sparsemax": "limelight.normalizers",
    "TopK": "limelight.normalizers",
    "layers": "limelight.layers",
    "recipes": "limelight.recipes",
    "upgrade": "limelight.upgrading",
    "lint": "limelight.linting",
    "capture": "limelight.observe",
    "Probe": "limelight.observe",
    "AttentionCallback": "limelight.observe",
    "register_adapter": "limelight.observe",
    "attribute": "limelight.observe",
    "head_importance": "limelight.observe",
    "observe": "limelight.observe",
    "AttentionMap": "limelight.maps",
    "AttentionMaps": "limelight.maps",
    "data": "limelight.data",
    "analysis": "limelight.analysis",
    "evaluate": "limelight.evaluate",
    "plot": "limelight.plot",
    "report": "limelight.report",
}

# Those that hold numpy arrays and no tensors work without a backend.
_WITHOUT_BACKEND = {
    f"limelight.{part}" for part in ("analysis", "data", "evaluate", "maps", "plot", "report", "surveying")
}

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
