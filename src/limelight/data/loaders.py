"""Load a data set by its name, or labelled texts and series from a file or folder."""

import difflib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from limelight.data import readers, registry, seriesfiles, textfiles
from limelight.data.cleaning import SERIES_ADVICE, build_dataset
from limelight.data.dataset import Dataset
from limelight.data.pairs import Pairs
from limelight.data.panel import Panel
from limelight.exceptions import DataError

_SUFFIXES = {".csv", ".tsv", ".jsonl", ".parquet"}

# Formats of arrays, which hold no texts.
_ARRAY_SUFFIXES = {".arff", ".h5", ".hdf5", ".mat", ".npy", ".npz"}


def load(
    source: str | os.PathLike[str],
    *,
    text: str | None = None,
    label: str | None = None,
    group: str | None = None,
    task: Literal["classify", "regress"] | None = None,
    classes: Sequence[str] | None = None,
) -> Dataset | Pairs | Panel:
    """Load a data set by its name, or labelled texts and series from a file, clean them, and count what was changed.

    Duplicate texts are dropped (the first stays), as are all texts that occur with different labels and rows without a text
    or a label; texts that differ only in case or white space are duplicates. In a regression, equal texts are merged, and
    their targets averaged. Line ends become `\\n` and characters Unicode NFC.

    Args:
        source: The name of a data set (`limelight.data.NAMES`), downloaded once and cached; the path of a .csv, .tsv, .jsonl
            or .parquet file; of a folder with one folder of .txt files for each class; or of a .ts file of labelled series
            (`X_TRAIN.ts` together with `X_TEST.ts` beside it). Files may be compressed (.gz, or .zip with one file).
        text: The column (or key) of the texts. By default the only one with a usual name, such as "text" or "review".
        label: The column of the labels. By default the only one with a usual name, such as "label" or "sentiment"; in a
            regression also "score" or "rating".
        group: The column of the groups (patients, authors, threads): `split` keeps the examples of a group in one part.
        task: "classify" if the labels are classes, "regress" if they are numbers to predict (`Dataset.targets`). By default
            what a .ts file says, and classes elsewhere.
        classes: The classes of a model that is to be tested, in their order: labels must be of them, and each may be rare or
            missing. By default those of the labels, two or more with two examples each.

    Returns:
        The data set, with its repairs: of a file or folder a `Dataset`; of a name also `Pairs` or a `Panel`. Files of pairs
        are read by `load_pairs`, tables of series by `load_panel`.

    Raises:
        DataError: the data cannot be used; the message says in one line what must hold, what was received, what to do.
        ValueError: `task` is another word.

    Example:
        >>> import tempfile
        >>> folder = tempfile.TemporaryDirectory()
        >>> path = Path(folder.name, "tiny.csv")
        >>> _ = path.write_text("review,sentiment\\ngood,1\\ngreat,1\\nbad,0\\nawful,0\\nawful,0\\n")
        >>> dataset = load(path)
        >>> dataset.inputs, dataset.classes, [str(repair) for repair in dataset.repairs]
        (('good', 'great', 'bad', 'awful'), ('0', '1'), ['duplicate texts dropped: 1'])
        >>> load(path, task="regress").targets
        array([1., 1., 0., 0.])
        >>> folder.cleanup()
    """
    if task not in (None, "classify", "regress"):
        raise ValueError(f"`task` must be 'classify', 'regress' or None. Received: {task!r}.")
    is_regression = task == "regress"
    columns_given = any(column is not None for column in (text, label, group))
    received = f"Received: text={text!r}, label={label!r}, group={group!r}. Leave them out."
    if isinstance(source, str) and source in registry.NAMES:
        if columns_given:
            raise DataError(f"The data set {source!r} has its own columns. {received}")
        if is_regression:
            raise DataError(f"The data set {source!r} has no numeric targets. Received: task='regress'. Leave it out.")
        return registry.load(source)
    path = Path(os.path.expanduser(source))  # leaves a name unchanged that begins with ~ and is not a user's
    try:
        is_folder, exists = path.is_dir() and str(source) != "", path.exists() and str(source) != ""
    except OSError as error:
        raise DataError(
            f"The source must be a path that can be read. {error.strerror}: {str(path)[:100]!r}."
        ) from error
    if is_folder:
        if is_regression:
            raise DataError(
                "A folder's labels are classes. Received: task='regress'. Give a table with a column of numbers."
            )
        if columns_given:
            raise DataError(f"A folder's texts are its files, and its labels are its subfolders. {received}")
        raw = readers.read_folder(path)
        return build_dataset(path.resolve().name, raw, f"the folder {str(path)!r}", "the folder", classes=classes)
    if not exists:
        similar = difflib.get_close_matches(str(source).casefold(), registry.NAMES, n=1)
        hint = f" Did you mean {similar[0]!r}?" if similar else ""
        raise DataError(
            f"The source must be a data set ({', '.join(registry.NAMES)}) or the path of a file or folder. There is no "
            f"{str(source)[:100]!r}.{hint}"
        )
    if textfiles.suffix_of(path) != ".ts":
        return _load_table(path, text, label, group, is_regression, classes)
    if columns_given:
        raise DataError(f"A .ts file has no columns. {received}")
    return seriesfiles.read_series(path, None if task is None else is_regression, classes)


def _load_table(
    path: Path,
    text: str | None,
    label: str | None,
    group: str | None,
    is_regression: bool,
    classes: Sequence[str] | None,
) -> Dataset:
    """Load labelled texts from a file of a table."""
    suffix = textfiles.suffix_of(path)
    if suffix not in _SUFFIXES:
        advice = SERIES_ADVICE if suffix in _ARRAY_SUFFIXES else "Convert it."
        if suffix == ".tmx":
            advice = "Read it with `load_pairs`."
        elif suffix not in _ARRAY_SUFFIXES:
            advice = "Convert it; lines and their translations are two files (see docs/data.md)."
        raise DataError(
            f"The source must be a .csv, .tsv, .jsonl, .parquet or .ts file, or a folder. Received: {str(path)!r}. {advice}"
        )
    raw, label = readers.read_examples(path, text, label, group, is_regression)
    name = textfiles.stem_of(path)
    return build_dataset(name, raw, f"the file {str(path)!r}", f"column {label!r}", is_regression, classes)
