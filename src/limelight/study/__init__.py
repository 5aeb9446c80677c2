"""The main job: train with and without attention, compare, and show what the model looks at."""

from limelight.study.errors import QualityError, StudyError, TrainingError, UsageError
from limelight.study.settings import Settings, resolve

__all__ = ["QualityError", "Settings", "StudyError", "TrainingError", "UsageError", "resolve"]
