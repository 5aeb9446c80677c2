"""What a study reads before it trains anything: found wrong, it ends in a moment, and Keras was never loaded."""

import dataclasses
from pathlib import Path
from typing import Any

import limelight
from limelight import _backend, data
from limelight.study.folder import StudyFolder
from limelight.study.settings import Settings


@dataclasses.dataclass(frozen=True, eq=False)
class Prepared:
    """The data of a study, read and split, and the folder that it will write."""

    dataset: data.Dataset
    split: data.Split
    out: Path

    def configuration(self, settings: Settings) -> dict[str, Any]:
        """What decides the runs of the study, ready for JSON."""
        return {
            "limelight": limelight.__version__,
            "backend": _backend.require(),
            "data": self.dataset.name,
            "fingerprint": self.split.fingerprint,
            # Runs keep their predictions row for row.
            "order_of_rows": self.split.order,
            **settings.of_runs(),
        }


def prepare(settings: Settings, fresh: bool = False) -> Prepared:
    """Read and split the data and look at the output folder. Writes nothing there.

    Args:
        settings: What will be done.
        fresh: Whether an earlier study will be replaced.

    Raises:
        DataError: something is wrong with the data.
        UsageError: the folder cannot be a study's, or holds one of another configuration.
    """
    if settings.out is not None:
        StudyFolder(settings.out).check()
    dataset = data.load(settings.source, text=settings.text, label=settings.label, task=settings.task)
    split = data.split(dataset, validation=settings.validation, test=settings.test)
    prepared = Prepared(dataset, split, Path(settings.out or Path("limelight-study", dataset.name)))
    StudyFolder(prepared.out).check(prepared.configuration(settings), fresh)
    return prepared
