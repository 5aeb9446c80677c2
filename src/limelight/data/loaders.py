"""Load a labelled data set by its name, or from a file or folder."""

import difflib
import os
from pathlib import Path

from limelight.data import readers, registry
from limelight.data.cleaning import SERIES_ADVICE, build_dataset
from limelight.data.dataset import Dataset
from limelight.exceptions import DataError

_READERS = {
    ".csv": readers.read_table,
    ".tsv": readers.read_table,
    ".jsonl": readers.read_json_lines,
    ".parquet": readers.read_parquet,
}

# Formats of arrays, which hold no texts.
_SERIES_SUFFIXES = {".arff", ".h5", ".hdf5", ".mat", ".npy", ".npz", ".ts"}


def load(
    source: str | os.PathLike[str], *, text: str | None = None, label: str | None = None, group: str | None = None
) -> Dataset:
    """Load a labelled data set, clean it, and count what was changed.

    Duplicate texts are dropped (the first stays), as are all texts that occur with different labels and rows without a text
    or a label; texts that differ only in case or white space are duplicates. Line ends become `\\n` and characters Unicode
    NFC.

    Args:
        source: The name of a data set (`limelight.data.NAMES`), downloaded once and cached; the path of a .csv, .tsv, .jsonl
            or .parquet file; or of a folder with one folder of .txt files for each class.
        text: The column (or key) of the texts. By default the only one with a usual name, such as "text" or "review".
        label: The column of the labels. By default the only one with a usual name, such as "label" or "sentiment".
        group: The column of the groups (patients, authors, threads): `split` keeps the examples of a group in one part.

    Returns:
        The data set, with its repairs.

    Raises:
        DataError: the data cannot be used; the message says in one line what must hold, what was received, what to do.

    Example:
        >>> import tempfile
        >>> folder = tempfile.TemporaryDirectory()
        >>> path = Path(folder.name, "tiny.csv")
        >>> _ = path.write_text("review,sentiment\\ngood,1\\ngreat,1\\nbad,0\\nawful,0\\nawful,0\\n")
        >>> dataset = load(path)
        >>> dataset.inputs, dataset.classes, [str(repair) for repair in dataset.repairs]
        (('good', 'great', 'bad', 'awful'), ('0', '1'), ['duplicate texts dropped: 1'])
        >>> folder.cleanup()
    """
    columns_given = any(column is not None for column in (text, label, group))
    received = f"Received: text={text!r}, label={label!r}, group={group!r}. Leave them out."
    if isinstance(source, str) and source in registry.NAMES:
        if columns_given:
            raise DataError(f"The data set {source!r} has its own columns. {received}")
        return registry.load(source)
    path = Path(os.path.expanduser(source))  # leaves a name unchanged that begins with ~ and is not a user's
    try:
        is_folder, exists = path.is_dir() and str(source) != "", path.exists() and str(source) != ""
    except OSError as error:
        raise DataError(
            f"The source must be a path that can be read. {error.strerror}: {str(path)[:100]!r}."
        ) from error
    if is_folder:
        if columns_given:
            raise DataError(f"A folder's texts are its files, and its labels are its subfolders. {received}")
        return build_dataset(path.resolve().name, readers.read_folder(path), f"the folder {str(path)!r}", "the folder")
    if not exists:
        similar = difflib.get_close_matches(str(source).casefold(), registry.NAMES, n=1)
        hint = f" Did you mean {similar[0]!r}?" if similar else ""
        raise DataError(
            f"The source must be a data set ({', '.join(registry.NAMES)}) or the path of a file or folder. There is no "
            f"{str(source)[:100]!r}.{hint}"
        )
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        advice = SERIES_ADVICE if path.suffix.lower() in _SERIES_SUFFIXES else "Convert it."
        raise DataError(
            f"The source must be a .csv, .tsv, .jsonl or .parquet file, or a folder. Received: {str(source)!r}. {advice}"
        )
    raw, label = reader(path, text, label, group)
    return build_dataset(path.stem, raw, f"the file {str(path)!r}", f"column {label!r}")
