"""Replace Keras's attention layers in an existing model by limelight's, with the same weights."""

from limelight.conversion.convert import UpgradeWarning, upgrade

__all__ = ["UpgradeWarning", "upgrade"]
