"""Read the data of a study and check its output folder, before Keras is loaded and anything is trained."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

import limelight
from limelight import _backend, data
from limelight.study import verdict
from limelight.study.folder import DATA_SETTINGS, StudyFolder
from limelight.study.settings import Settings


@dataclasses.dataclass(frozen=True, eq=False)
class Setup:
    """The data of a study and their split, and its output folder."""

    dataset: data.Dataset
    split: data.Split
    out: Path

    def configuration(self, settings: Settings) -> dict[str, Any]:
        """Return everything that the runs of the study depend on, ready for JSON."""
        return {
            "limelight": limelight.__version__,
            "backend": _backend.require(),
            "data": self.dataset.name,
            "fingerprint": self.split.fingerprint,
            # The stored predictions follow the order of the rows.
            "order_of_rows": self.split.order,
            **{name: getattr(settings, name) for name in DATA_SETTINGS},
            **settings.training_settings(),
        }


def prepare(settings: Settings, fresh: bool = False) -> Setup:
    """Read and split the data, and check the output folder without writing to it.

    Args:
        settings: The settings of the study.
        fresh: True if an earlier study in the folder will be replaced.

    Raises:
        DataError: the data cannot be used.
        UsageError: the folder belongs to something else, or holds a study of another configuration.
    """
    if settings.out is not None:
        StudyFolder(settings.out).check()
    dataset = data.load(settings.source, text=settings.text, label=settings.label, group=settings.group)
    if not isinstance(dataset, data.Dataset) or dataset.targets is not None:
        raise data.DataError(
            f"The data of a study must be texts or series with classes. {settings.source!r} is {dataset!r}. Name another."
        )
    split = data.split(dataset, validation=settings.validation, test=settings.test)
    dataset = _put_rare_class_last(dataset, split)
    setup = Setup(dataset, split, Path(settings.out or Path("limelight-study", dataset.name)))
    StudyFolder(setup.out).check(setup.configuration(settings), fresh)
    return setup


def _put_rare_class_last(dataset: data.Dataset, split: data.Split) -> data.Dataset:
    """Reverse the order of two imbalanced classes of which the first is rare.

    The average precision is that of the second class: that of a class to which nearly all examples belong says nothing.
    """
    counts = np.bincount(dataset.labels[split.train], minlength=len(dataset.classes))
    if verdict.choose_metric(counts) != "average_precision" or counts[0] > counts[1]:
        return dataset
    return dataclasses.replace(dataset, classes=dataset.classes[::-1], labels=1 - dataset.labels)
