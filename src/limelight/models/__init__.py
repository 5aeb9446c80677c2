"""Estimators that take raw data, and builders of the Keras models inside them.

The estimators are imported when they are first used: they need scikit-learn and tokenizers, which the builders do not.
"""

import importlib
from typing import TYPE_CHECKING, Any

from limelight.models.builders import (
    build_document_classifier,
    build_series_classifier,
    build_series_regressor,
    build_text_classifier,
    build_text_regressor,
)
from limelight.models.decoding import BeamSearch, Sampling
from limelight.models.forecasting import build_forecaster
from limelight.models.pretrained import BertEncoder, load_encoder
from limelight.models.translation import build_transformer_translator, build_translator

if TYPE_CHECKING:
    from limelight.models.estimators import (
        DocumentClassifier,
        SeriesClassifier,
        SeriesRegressor,
        TextClassifier,
        TextRegressor,
    )
    from limelight.models.files import load
    from limelight.models.forecaster import Backtest, Forecaster
    from limelight.models.training import TrainingConfig
    from limelight.models.translator import Translator

__all__ = [
    "Backtest",
    "BeamSearch",
    "BertEncoder",
    "DocumentClassifier",
    "Forecaster",
    "Sampling",
    "SeriesClassifier",
    "SeriesRegressor",
    "TextClassifier",
    "TextRegressor",
    "TrainingConfig",
    "Translator",
    "build_document_classifier",
    "build_forecaster",
    "build_series_classifier",
    "build_series_regressor",
    "build_text_classifier",
    "build_text_regressor",
    "build_transformer_translator",
    "build_translator",
    "load",
    "load_encoder",
]

_MODULES = {
    "Backtest": "forecaster",
    "DocumentClassifier": "estimators",
    "Forecaster": "forecaster",
    "SeriesClassifier": "estimators",
    "SeriesRegressor": "estimators",
    "TextClassifier": "estimators",
    "TextRegressor": "estimators",
    "TrainingConfig": "training",
    "Translator": "translator",
    "load": "files",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'limelight.models' has no attribute {name!r}. It has: {', '.join(__all__)}.")
    value = getattr(importlib.import_module(f"limelight.models.{_MODULES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
