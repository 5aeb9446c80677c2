"""The output folder of a study: one writer at a time, finished runs stored atomically, other files untouched."""

import contextlib
import dataclasses
import hashlib
import json
import os
import shutil
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np

from limelight import _files
from limelight.exceptions import UsageError

CONFIGURATION = "study.json"
# Distinguishes our configuration from another program's `study.json`.
MARK = "limelight_study"
LOCK = ".lock"
RUNS = "runs"
# The result of the tests of the attention, and until then the parts of it.
EXPLANATION = "explanation"
# In a configuration, the hashes of the data and their split, and the settings that change them.
DATA_HASHES = ("fingerprint", "order_of_rows")
DATA_SETTINGS = (
    *("text", "label", "group", "validation", "test", "translations", "source", "target"),
    *("time", "value", "series", "known", "observed", "static"),
)
# The files of a study besides its runs. Nothing else is ever removed.
OUTPUTS = ("report.html", "results.json", "model.keras", "figures", EXPLANATION, CONFIGURATION)


@dataclasses.dataclass(frozen=True)
class Run:
    """One model trained once.

    Attributes:
        model: The model's short name.
        seed: The seed of the initial weights, the dropout and the order of the examples.
        summary: Seconds, epochs, parameters and history of the training, ready for JSON.
        predictions: For each part of the data, the predictions (examples, ...), such as class predictions.
        keras_model: The path of the saved model, or None for a model that is not a Keras model.
        digest: The hash of the saved model.
    """

    model: str
    seed: int
    summary: dict[str, Any]
    predictions: dict[str, np.ndarray]
    keras_model: Path | None = None
    digest: str | None = None

    @property
    def name(self) -> str:
        """The name of the run's folder: the model and the seed."""
        return f"{self.model}-seed{self.seed}"


class StudyFolder:
    """The output folder of a study, locked by one process inside a `with` block.

    Args:
        path: The folder. It is created when the block is entered.

    Raises:
        UsageError: the path is not a folder, holds files that no study wrote, or is locked by another process.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._lock: IO[str] | None = None

    def check(self, configuration: Mapping[str, Any] | None = None, fresh: bool = False) -> None:
        """Check without writing whether the block can be entered and `claim` will succeed.

        Args:
            configuration: The argument of `claim`, if it is known already.
            fresh: The argument of `claim`.

        Raises:
            UsageError: a study cannot be written here.
        """
        self._check_contents()
        if (self.path / LOCK).exists():
            with open(self.path / LOCK, "a+", encoding="ascii") as stream:
                self._acquire(stream)
        if configuration is not None and not fresh:
            self._check_configuration(configuration)

    def __enter__(self) -> "StudyFolder":
        self._check_contents()
        (self.path / RUNS).mkdir(parents=True, exist_ok=True)
        self._lock = open(self.path / LOCK, "a+", encoding="ascii")
        try:
            self._acquire(self._lock)
        except UsageError:
            self._lock.close()
            raise
        self._lock.truncate(0)
        self._lock.write(str(os.getpid()))
        self._lock.flush()
        for folder in (self.path, self.path / "figures", *(self.path / RUNS).iterdir()):
            _files.remove_temporary_files(folder)
        return self

    def __exit__(self, *_: object) -> None:
        # Closing releases the lock. The file stays: if it were removed, two processes could lock two files of this name.
        if self._lock is not None:
            self._lock.close()

    def claim(self, configuration: Mapping[str, Any], fresh: bool = False) -> None:
        """Store the configuration in the folder, or check that it is the stored one.

        Args:
            configuration: Everything that the runs depend on, ready for JSON: a flat mapping.
            fresh: Remove an earlier study first.

        Raises:
            UsageError: the folder holds a study of another configuration; the message names the differences.
        """
        if fresh:
            self._clear()
        self._check_configuration(configuration)
        if self._read_configuration() is None:
            (self.path / RUNS).mkdir(exist_ok=True)
            _files.write_json(self.path / CONFIGURATION, {MARK: 1, "configuration": configuration})

    def save_run(
        self,
        model: str,
        seed: int,
        summary: Mapping[str, Any],
        predictions: Mapping[str, np.ndarray],
        save_model: Callable[[Path], None] | None = None,
    ) -> Run:
        """Store a finished run. Its summary is written last, as the sign that the run is complete.

        Args:
            model: The model's short name.
            seed: The run's seed.
            summary: The summary of the training, ready for JSON.
            predictions: For each part of the data, the predictions (examples, ...).
            save_model: A function that writes the model to a path.

        Returns:
            The run, as `load_run` will return it.
        """
        folder = self.path / RUNS / f"{model}-seed{seed}"
        with _files.atomic_write(folder / "predictions.npz") as temporary, open(temporary, "wb") as stream:
            arrays: dict[str, Any] = dict(predictions)
            np.savez_compressed(stream, **arrays)
        if save_model is not None:
            with _files.atomic_write(folder / "model.keras") as temporary:
                save_model(temporary)
        files = [path for path in (folder / "predictions.npz", folder / "model.keras") if path.exists()]
        document = {
            "model": model,
            "seed": seed,
            "summary": dict(summary),
            "sha256": {path.name: _sha256(path) for path in files},
        }
        _files.write_json(folder / "run.json", document)
        run = self.load_run(model, seed)
        if run is None:
            raise OSError(f"{folder} was changed by another program during the study.")
        return run

    def load_run(self, model: str, seed: int) -> Run | None:
        """Return a stored run, or None if there is none or its files are damaged."""
        folder = self.path / RUNS / f"{model}-seed{seed}"
        try:
            document = json.loads((folder / "run.json").read_text(encoding="utf-8"))
            if any(_sha256(folder / name) != digest for name, digest in document["sha256"].items()):
                return None
            with np.load(folder / "predictions.npz", allow_pickle=False) as archive:
                predictions = {name: archive[name] for name in archive.files}
            digest = document["sha256"].get("model.keras")
            keras_model = None if digest is None else folder / "model.keras"
            return Run(model, seed, document["summary"], predictions, keras_model, digest)
        except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError, zipfile.BadZipFile):
            return None

    def save_explanation(self, key: Mapping[str, Any], document: Mapping[str, Any]) -> None:
        """Store the result of the tests of the attention, with what it depends on."""
        path = self.path / EXPLANATION / "explanation.json"
        _files.write_json(path, {"key": dict(key), "explanation": dict(document)})

    def load_explanation(self, key: Mapping[str, Any]) -> dict[str, Any] | None:
        """Return the stored result; None if there is none, or it is of something else."""
        try:
            document = json.loads((self.path / EXPLANATION / "explanation.json").read_text(encoding="utf-8"))
            return document["explanation"] if document["key"] == json.loads(json.dumps(dict(key))) else None
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return None

    def _check_contents(self) -> None:
        """Raise if the path is a file, or a folder that no study wrote."""
        if self.path.exists() and not self.path.is_dir():
            raise UsageError(f"--out must be a folder. {self.path} is a file. Use another --out.")
        if self._read_configuration() is None and (foreign := next(self._contents(), None)):
            raise UsageError(
                f"--out must be an empty folder or the folder of an earlier study. {self.path} holds "
                f"{foreign.name!r}. Use another --out."
            )

    def _check_configuration(self, configuration: Mapping[str, Any]) -> None:
        """Raise if the folder holds a study of another configuration."""
        stored, requested = self._read_configuration(), json.loads(json.dumps(configuration))
        if stored is not None and (differences := _describe_differences(stored, requested)):
            raise UsageError(
                f"{self.path} holds a study with {'; '.join(differences)}. "
                "Use --fresh to replace it, or another --out to keep it."
            )

    def _acquire(self, stream: IO[str]) -> None:
        """Lock the folder's open lock file, or raise if another process holds the lock."""
        if not _try_lock(stream):
            stream.seek(0)
            raise UsageError(
                f"Another process (id {stream.read().strip() or 'unknown'}) is writing to {self.path}. Wait until it ends, "
                "or use another --out."
            )

    def _contents(self) -> Iterator[Path]:
        """Yield the entries of the folder, except its lock and what a killed study left unfinished."""
        if not self.path.is_dir():
            return
        for path in sorted(self.path.iterdir()):
            unfinished = path.name == RUNS and path.is_dir() and not any(path.iterdir())
            if path.name != LOCK and not _files.is_temporary(path) and not unfinished:
                yield path

    def _read_configuration(self) -> dict[str, Any] | None:
        """Return the configuration of the study in the folder, or None if there is none."""
        try:
            document = json.loads((self.path / CONFIGURATION).read_text(encoding="utf-8"))
            return document["configuration"] if document[MARK] == 1 else None
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return None

    def _clear(self) -> None:
        """Remove the files of an earlier study, its configuration last, and nothing else."""
        for name in (RUNS, *OUTPUTS):
            path = self.path / name
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)


def _describe_differences(stored: Mapping[str, Any], requested: Mapping[str, Any]) -> list[str]:
    """Return the differences in words.

    Settings of the data matter only if the data or their split differ, and are then reported in place of their hashes.
    """
    different = [name for name in {**requested, **stored} if stored.get(name) != requested.get(name)]
    hashes = [name for name in different if name in DATA_HASHES]
    causes = [name for name in different if name in DATA_SETTINGS]
    others = [name for name in different if name not in (*hashes, *causes)]
    return [
        f"{name.replace('_', ' ')} {stored.get(name)}, not {requested.get(name)}"
        for name in [*((causes or hashes) if hashes else ()), *others]
    ]


def _sha256(path: Path) -> str:
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _try_lock(stream: IO[str]) -> bool:
    """Lock a file until it is closed or the process ends. Return False if another process holds the lock."""
    try:
        import fcntl
    except ImportError:  # Windows
        import msvcrt

        with contextlib.suppress(OSError):
            # Lock a byte far behind the process id, which others must be able to read.
            stream.seek(1 << 20)
            msvcrt.locking(stream.fileno(), msvcrt.LK_NBLCK, 1)  # pyright: ignore[reportAttributeAccessIssue]
            return True
        return False
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
