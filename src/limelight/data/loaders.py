"""One way in for every source of data."""

import difflib
import os
from pathlib import Path

from limelight.data import cleaning, folders, records, registry, tables
from limelight.data.dataset import Dataset
from limelight.data.errors import DataError

_READERS = {
    ".csv": tables.read,
    ".tsv": tables.read,
    ".jsonl": records.read_lines,
    ".parquet": records.read_parquet,
}


def load(
    source: str | os.PathLike[str], *, text: str | None = None, label: str | None = None, task: str = "classify"
) -> Dataset:
    """Read a labelled data set, clean it, and count what was changed.

    Duplicate texts are dropped before anything else can see them (the first stays), texts that occur with different labels
    altogether; rows without a text or a label are dropped; line ends become `\\n` and characters Unicode NFC.

    Args:
        source: The name of a data set (`limelight.data.NAMES`), fetched once and kept; the path of a .csv, .tsv, .jsonl or
            .parquet file; or of a folder with one folder of .txt files for each class.
        text: The column (or key) of the texts. Left out, the one obvious candidate, such as "text" or "review".
        label: The column of the labels. Left out, the one obvious candidate, such as "label" or "sentiment".
        task: "classify".

    Returns:
        The data set, with its repairs.

    Raises:
        DataError: anything that is wrong with the data, in one line: what must hold, what arrived, what to do.
        ValueError: `task` is not known.

    Example:
        >>> import tempfile
        >>> folder = tempfile.TemporaryDirectory()
        >>> path = Path(folder.name, "tiny.csv")
        >>> _ = path.write_text("review,sentiment\\ngood,1\\ngreat,1\\nbad,0\\nawful,0\\nawful,0\\n")
        >>> dataset = load(path)
        >>> dataset.inputs, dataset.classes, [str(repair) for repair in dataset.repairs]
        (('good', 'great', 'bad', 'awful'), ('0', '1'), ['1 duplicate texts dropped'])
        >>> folder.cleanup()
    """
    if task != "classify":
        raise ValueError(f"`task` must be 'classify'. Received: {task!r}.")
    if isinstance(source, str) and source in registry.NAMES:
        if text is not None or label is not None:
            raise DataError(
                f"The data set {source!r} has its own columns. Received: text={text!r}, label={label!r}. Leave them out."
            )
        return registry.load(source)
    path = Path(os.path.expanduser(source))  # leaves a name alone that begins with ~ and is no user's
    try:
        is_folder, is_there = path.is_dir() and str(source) != "", path.exists() and str(source) != ""
    except OSError as error:
        raise DataError(
            f"The source must be a path that can be read. {error.strerror}: {str(path)[:100]!r}."
        ) from error
    if is_folder:
        if text is not None or label is not None:
            raise DataError(
                f"A folder's texts are its files and its labels their folders. Received: text={text!r}, label={label!r}. Leave "
                f"them out."
            )
        return cleaning.assemble(path.resolve().name, folders.read(path), f"the folder {str(path)!r}", "the folder")
    reader = _READERS.get(path.suffix.lower())
    if not is_there:
        near = difflib.get_close_matches(str(source).casefold(), registry.NAMES, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise DataError(
            f"The source must be a data set ({', '.join(registry.NAMES)}) or the path of a file or folder. There is no "
            f"{str(source)[:100]!r}.{hint}"
        )
    if reader is None:
        raise DataError(
            f"The source must be a .csv, .tsv, .jsonl or .parquet file, or a folder. Received: {str(source)!r}. Convert it."
        )
    raw, label = reader(path, text, label)
    return cleaning.assemble(path.stem, raw, f"the file {str(path)!r}", f"column {label!r}")
