"""Find the task of a study from its data, and read the data of a task."""

import dataclasses
import itertools
import os
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from limelight import data
from limelight._optional import import_optional
from limelight.data import registry, textfiles, timesteps
from limelight.exceptions import ColumnError, DataError, NumericLabelsError
from limelight.study.settings import Settings, flag

# What each task needs, in the words of an error.
_NEEDS = {
    "classify": "texts or series with classes",
    "regress": "texts or series with numbers to predict",
    "translate": "pairs of texts",
    "forecast": "a table of series",
}
_TABLES = (".csv", ".tsv", ".jsonl", ".parquet")
# A column with fewer different values is one of classes, not of translations.
_DISTINCT_TARGETS = 0.5
_NUM_SAMPLE_TEXTS = 100


class Task(NamedTuple):
    """The task of a study: its name, why it is this one (None if it was given), and its data."""

    name: str
    reason: str | None
    dataset: data.Dataset | data.Pairs | data.Panel


def read(settings: Settings) -> Task:
    """Read the data of a study, and find the task if the settings do not name one.

    A named data set, a folder, a .ts or a .tmx file tells its task. Of a table it is the first of these: what a setting of one
    task alone says; classes, if there are a text and a label; numbers, if the labels are measurements; forecasts, if there are
    times and numbers; translations, if there are two columns of texts.

    Raises:
        DataError: the data cannot be used, or no task fits them.
        UsageError: a setting belongs to another task.
    """
    if settings.task is not None:
        settings.for_task(settings.task)  # raises for a setting of another task
        return Task(settings.task, None, _read_for(settings, settings.task))
    source = settings.data
    if source in registry.NAMES:
        dataset = data.load(source)
        return Task(_task_of(dataset), f"{source} holds {_describe(dataset)}", dataset)
    if given := _find_given(settings):
        task, name = given
        reason = "there are two files of lines" if name == "translations" else f"{flag(name)} is given"
        settings.for_task(task, reason)  # raises for a setting of another task
        return Task(task, reason, _read_for(settings, task))
    suffix = textfiles.suffix_of(Path(os.path.expanduser(source)))
    if suffix == ".tmx":
        return Task("translate", "a .tmx file holds translations", _read_for(settings, "translate"))
    if suffix == ".ts":
        dataset = data.load(source)
        return Task(_task_of(dataset), f"the file holds {_describe(dataset)}", dataset)
    return _try_tasks(settings, is_table=suffix in _TABLES)


def _try_tasks(settings: Settings, is_table: bool) -> Task:
    """Return the first task that the columns of a table fit."""
    columns_error: DataError
    # The first error in the rows of a table whose columns fit a task.
    rows_error: DataError | None = None
    try:
        return Task("classify", "the labels are classes", _read_for(settings, "classify"))
    except NumericLabelsError:
        return Task("regress", "the labels are measurements", _read_for(settings, "regress"))
    except ColumnError as error:
        columns_error = error
    # A column that was named wrongly is no reason to try another task.
    if not is_table or settings.text is not None or settings.label is not None:
        raise columns_error
    for task, reason in (
        ("regress", "there are a text and a number"),
        ("forecast", "there are times and numbers"),
        ("translate", "there are two columns of texts"),
    ):
        try:
            dataset = _read_for(settings, task)
        except ColumnError:
            continue
        except DataError as error:
            rows_error = rows_error or error
            continue
        if isinstance(dataset, data.Pairs) and not _are_translations(dataset, has_series=rows_error is not None):
            continue
        return Task(task, reason, dataset)
    if rows_error is not None:
        raise rows_error
    raise DataError(
        f"{columns_error} Other tasks need two columns of texts (--source, --target), or times and numbers (--time, --value)."
    )


def _read_for(settings: Settings, task: str) -> data.Dataset | data.Pairs | data.Panel:
    """Read the data as a task needs them."""
    source = settings.data
    if task == "translate":
        for name in ("sacrebleu", "jiwer"):
            # Better now than after hours of training.
            import_optional(name)
        files = source if settings.translations is None else (source, settings.translations)
        dataset = data.load_pairs(files, source=settings.source, target=settings.target, group=settings.group)
    elif task == "forecast":
        dataset = data.load_panel(
            source,
            time=settings.time,
            value=settings.value,
            series=settings.series,
            known=settings.known or (),
            observed=settings.observed or (),
            static=settings.static or (),
        )
    else:
        is_named = source in registry.NAMES
        dataset = data.load(
            source,
            text=settings.text,
            label=settings.label,
            group=settings.group,
            task=None if is_named else task,  # pyright: ignore[reportArgumentType]
        )
    if _task_of(dataset) != task:
        raise DataError(f"The data of --task {task} must be {_NEEDS[task]}. {source!r} is {dataset!r}. Name another.")
    return dataset


def _task_of(dataset: data.Dataset | data.Pairs | data.Panel) -> str:
    if isinstance(dataset, data.Pairs):
        return "translate"
    if isinstance(dataset, data.Panel):
        return "forecast"
    return "classify" if dataset.targets is None else "regress"


def _describe(dataset: data.Dataset | data.Pairs | data.Panel) -> str:
    return _NEEDS[_task_of(dataset)]


def _find_given(settings: Settings) -> tuple[str, str] | None:
    """Return the task that alone has a setting that was given, and the name of that setting."""
    for field in dataclasses.fields(settings):
        tasks = field.metadata["tasks"]
        if len(tasks) == 1 and field.metadata["group"] != "study" and getattr(settings, field.name) is not None:
            return tasks[0], field.name
    return None


def _are_translations(pairs: data.Pairs, has_series: bool) -> bool:
    """Return True if the targets are more than classes, and not the times of series that could not be read."""
    distinct = {target for targets in pairs.targets for target in targets}
    has_times = has_series and any(_are_times(texts) for texts in (distinct, pairs.sources))
    return len(distinct) >= _DISTINCT_TARGETS * len(pairs) and not has_times


def _are_times(texts: Iterable[str]) -> bool:
    """Return True if most of the first texts are times."""
    sample = list(itertools.islice(texts, _NUM_SAMPLE_TEXTS))
    return sum(map(timesteps.is_time, sample)) > len(sample) / 2
