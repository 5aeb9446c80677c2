"""The main job: train with and without attention, compare, and show what the model looks at."""

from pathlib import Path
from typing import Any

from limelight.study.errors import QualityError, StudyError, TrainingError, UsageError
from limelight.study.progress import Progress
from limelight.study.settings import Settings, resolve

__all__ = ["Progress", "QualityError", "Settings", "StudyError", "TrainingError", "UsageError", "resolve", "study"]


def study(settings: Settings, *, fresh: bool = False, progress: Progress | None = None) -> tuple[dict[str, Any], Path]:
    """Train with and without attention, compare, look at examples, and write everything to the output folder.

    Args:
        settings: What to do.
        fresh: Remove what an earlier study left in the folder.
        progress: Hears what happens; silent when not given.

    Returns:
        The results, as `results.json` holds them, and the path of the report.

    Raises:
        DataError: something is wrong with the data.
        UsageError: the folder is another's, or holds a study of another configuration.
        TrainingError: a loss is not a number.
        OSError: a file cannot be written. Finished runs stay.
    """
    from limelight.study.setup import prepare

    prepared = prepare(settings, fresh)
    from limelight.study import job

    return job.run(settings, prepared, fresh=fresh, progress=progress)
