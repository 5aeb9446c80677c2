"""Builders of whole models, ready to compile."""

from limelight.models.classifier import series_classifier, text_classifier

__all__ = ["series_classifier", "text_classifier"]
