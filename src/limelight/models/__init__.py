"""Estimators that take raw data, and builders of the Keras models inside them."""

from limelight.models.builders import (
    build_document_classifier,
    build_series_classifier,
    build_series_regressor,
    build_text_classifier,
    build_text_regressor,
)

__all__ = [
    "build_document_classifier",
    "build_series_classifier",
    "build_series_regressor",
    "build_text_classifier",
    "build_text_regressor",
]
