"""Train models with and without attention, compare them, and show what the attention looks at."""

from pathlib import Path
from typing import Any

from limelight._progress import Progress
from limelight.exceptions import TrainingError, UsageError
from limelight.study.settings import Settings, resolve_settings

__all__ = ["Progress", "Settings", "TrainingError", "UsageError", "resolve_settings", "run"]


def run(settings: Settings, *, fresh: bool = False, progress: Progress | None = None) -> tuple[dict[str, Any], Path]:
    """Train with and without attention, compare, choose examples, and write everything to the output folder.

    Runs that the folder already holds are not trained again. Each new run is saved as soon as it is finished.

    Args:
        settings: The settings of the study.
        fresh: Remove an earlier study from the folder first.
        progress: Prints the progress; silent by default.

    Returns:
        The results, as in `results.json`, and the path of the report.

    Raises:
        DataError: the data cannot be used.
        UsageError: the folder belongs to something else, or holds a study of another configuration; or a setting belongs to
            another task.
        TrainingError: the loss is not finite.
        OSError: a file cannot be written. Finished runs stay.
    """
    from limelight.study.setup import prepare

    setup = prepare(settings, fresh)
    # Keras is loaded only when the data are known to be usable.
    from limelight.study import job

    return job.run(setup, fresh=fresh, progress=progress)
