"""Keras's attention layers in a model that exists, replaced by limelight's with the same weights."""

from limelight.conversion.convert import UpgradeWarning, upgrade

__all__ = ["UpgradeWarning", "upgrade"]
