"""Attention for Keras 3: build it, train it, see it, test it, on any backend, at any length.

Every name below is imported when it is first used, so that `import limelight` is quick and loads no backend.
"""

import importlib
from typing import TYPE_CHECKING, Any

from limelight import _backend, _registration

if TYPE_CHECKING:
    from limelight import analysis as analysis
    from limelight import data as data
    from limelight import evaluate as evaluate
    from limelight import explanation as explanation
    from limelight import inspection as inspection
    from limelight import layers as layers
    from limelight import masks as masks
    from limelight import models as models
    from limelight import normalizers as normalizers
    from limelight import plot as plot
    from limelight import positions as positions
    from limelight import recipes as recipes
    from limelight import report as report
    from limelight import scores as scores
    from limelight import study as study
    from limelight.conversion import upgrade as upgrade
    from limelight.functional import attend as attend
    from limelight.functional import attention_statistics as attention_statistics
    from limelight.functional import attention_weights as attention_weights
    from limelight.functional import explain_implementation as explain_implementation
    from limelight.inspection import AttentionCallback as AttentionCallback
    from limelight.inspection import AttentionExtractor as AttentionExtractor
    from limelight.inspection import capture as capture
    from limelight.linter import lint as lint
    from limelight.maps import AttentionMap as AttentionMap
    from limelight.maps import AttentionMaps as AttentionMaps

__version__ = "0.1.0"

# The module that each public name is imported from; for a namespace, the module itself.
_PUBLIC = {
    "AttentionCallback": "limelight.inspection",
    "AttentionExtractor": "limelight.inspection",
    "AttentionMap": "limelight.maps",
    "AttentionMaps": "limelight.maps",
    "analysis": "limelight.analysis",
    "attend": "limelight.functional",
    "attention_statistics": "limelight.functional",
    "attention_weights": "limelight.functional",
    "capture": "limelight.inspection",
    "data": "limelight.data",
    "evaluate": "limelight.evaluate",
    "explain_implementation": "limelight.functional",
    "explanation": "limelight.explanation",
    "inspection": "limelight.inspection",
    "layers": "limelight.layers",
    "lint": "limelight.linter",
    "masks": "limelight.masks",
    "models": "limelight.models",
    "normalizers": "limelight.normalizers",
    "plot": "limelight.plot",
    "positions": "limelight.positions",
    "recipes": "limelight.recipes",
    "report": "limelight.report",
    "scores": "limelight.scores",
    "study": "limelight.study",
    "upgrade": "limelight.conversion",
}

# Modules that work on numpy arrays or start a process of their own: they can be imported without a backend.
_WITHOUT_BACKEND = {f"limelight.{name}" for name in ("analysis", "data", "evaluate", "maps", "plot", "report", "study")}

__all__ = [*_PUBLIC, "__version__"]  # pyright: ignore[reportUnsupportedDunderAll]

_backend.choose()
_registration.register_placeholders()


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'limelight' has no attribute {name!r}. It has: {', '.join(sorted(_PUBLIC))}.")
    if _PUBLIC[name] not in _WITHOUT_BACKEND:
        _backend.require()
    module = importlib.import_module(_PUBLIC[name])
    value = module if _PUBLIC[name] == f"limelight.{name}" else getattr(module, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
