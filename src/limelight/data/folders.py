"""A folder with one folder of .txt files for each class."""

from pathlib import Path

from limelight.data.cleaning import Raw
from limelight.data.dataset import Repair
from limelight.data.decoding import decode
from limelight.data.errors import DataError


def read(folder: Path) -> Raw:
    """Read every .txt file right inside each folder of `folder`, in the order of their names; the folder is the class.

    Names that begin with a dot are passed over; other files are left out and counted.

    Raises:
        DataError: there is no such folder inside, or a file cannot be read or is not UTF-8.
    """
    raw = Raw([], [])
    marks: list[Repair] = []
    left_out = 0
    try:
        for inner in sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")):
            for path in sorted(path for path in inner.iterdir() if not path.name.startswith(".")):
                if path.suffix.lower() != ".txt" or not path.is_file():
                    left_out += 1
                    continue
                raw.texts.append(decode(path.read_bytes(), path, marks))
                raw.labels.append(inner.name)
    except OSError as error:
        raise DataError(
            f"{str(folder)!r} must be a folder that can be read. {error.strerror or error}: {error.filename!r}."
        ) from error
    if not raw.texts:
        raise DataError(
            f"{str(folder)!r} must hold one folder for each class, with .txt files right inside. None is there. "
            f"Give the folder that holds the classes' folders."
        )
    if left_out:
        raw.repairs.append(Repair("files that are not .txt left out", left_out))
    if marks:
        raw.repairs.append(Repair("byte order marks removed", len(marks)))
    return raw
