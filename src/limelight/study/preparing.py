"""What a study reads before it trains anything: found wrong, it ends in a moment, and Keras was never loaded."""

import dataclasses
from pathlib import Path

from limelight import data
from limelight.study.folder import StudyFolder
from limelight.study.settings import Settings


@dataclasses.dataclass(frozen=True, eq=False)
class Prepared:
    """The data of a study, read and split, and the folder that it will write."""

    dataset: data.Dataset
    split: data.Split
    out: Path


def prepare(settings: Settings) -> Prepared:
    """Read and split the data and look at the output folder. Writes nothing there.

    Raises:
        DataError: something is wrong with the data.
        UsageError: the folder cannot be a study's.
    """
    if settings.out is not None:
        StudyFolder(settings.out).check()
    dataset = data.load(settings.source, text=settings.text, label=settings.label, task=settings.task)
    split = data.split(dataset)
    out = Path(settings.out or Path("limelight-study", dataset.name))
    StudyFolder(out).check()
    return Prepared(dataset, split, out)
