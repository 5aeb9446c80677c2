"""Read the data of a study and check its output folder, before Keras is loaded and anything is trained."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

import limelight
from limelight import _backend, data
from limelight.study import tasks, verdict
from limelight.study.folder import DATA_SETTINGS, StudyFolder
from limelight.study.settings import Settings


@dataclasses.dataclass(frozen=True, eq=False)
class Setup:
    """The data of a study and their split, its settings and its output folder.

    Attributes:
        settings: The settings, with the task and its defaults.
        dataset: The data.
        split: Their parts; None for series to forecast, which are split in time.
        out: The output folder.
        given: The settings as they were given; those of the command that reproduces the study.
        reason: Why the task is this one; None if it was given.
    """

    settings: Settings
    dataset: data.Dataset | data.Pairs | data.Panel
    split: data.Split | None
    out: Path
    given: Settings | None = None
    reason: str | None = None

    def configuration(self) -> dict[str, Any]:
        """Return everything that the runs of the study depend on, ready for JSON."""
        hashes = {}
        if isinstance(self.dataset, data.Panel):
            hashes = {"fingerprint": self.dataset.fingerprint}
        elif self.split is not None:
            # The stored predictions follow the order of the rows.
            hashes = {"fingerprint": self.split.fingerprint, "order_of_rows": self.split.order}
        names = [*DATA_SETTINGS, *self.settings.training_settings()]
        values = {name: getattr(self.settings, name) for name in dict.fromkeys(names)}
        return {
            "limelight": limelight.__version__,
            "backend": _backend.require(),
            "data": self.dataset.name,
            **hashes,
            **{name: value for name, value in values.items() if value is not None},
        }


def prepare(settings: Settings, fresh: bool = False) -> Setup:
    """Read and split the data, and check the output folder without writing to it.

    Args:
        settings: The settings of the study.
        fresh: True if an earlier study in the folder will be replaced.

    Raises:
        DataError: the data cannot be used.
        UsageError: the folder belongs to something else, or holds a study of another configuration; or a setting belongs to
            another task.
    """
    if settings.out is not None:
        StudyFolder(settings.out).check()
    name, reason, dataset = tasks.read(settings)
    resolved = settings.for_task(name, reason or "as was given")
    split = None
    if not isinstance(dataset, data.Panel):
        split = data.split(dataset, validation=resolved.validation, test=resolved.test)
        if isinstance(dataset, data.Dataset) and dataset.targets is None:
            dataset = _put_rare_class_last(dataset, split)
    out = Path(settings.out or Path("limelight-study", dataset.name))
    setup = Setup(resolved, dataset, split, out, settings, reason)
    StudyFolder(setup.out).check(setup.configuration(), fresh)
    return setup


def _put_rare_class_last(dataset: data.Dataset, split: data.Split) -> data.Dataset:
    """Reverse the order of two imbalanced classes of which the first is rare.

    The average precision is that of the second class: that of a class to which nearly all examples belong says nothing.
    """
    counts = np.bincount(dataset.labels[split.train], minlength=len(dataset.classes))
    if verdict.choose_metric(counts) != "average_precision" or counts[0] > counts[1]:
        return dataset
    return dataclasses.replace(dataset, classes=dataset.classes[::-1], labels=1 - dataset.labels)
