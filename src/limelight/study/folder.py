"""The output folder of a study: one writer at a time, each finished run kept whole, nothing foreign touched."""

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
from limelight.study.errors import UsageError

CONFIGURATION = "study.json"
# Tells a configuration of ours from another program's `study.json`.
MARK = "limelight_study"
LOCK = ".lock"
RUNS = "runs"
# What a study writes beside its runs. Only these are ever removed.
OUTPUTS = ("report.html", "results.json", "model.keras", "tokenizer.json", "figures", CONFIGURATION)


@dataclasses.dataclass(frozen=True)
class Run:
    """One model trained once: what a table of runs shows, and its class probabilities on the data.

    Attributes:
        model: The model's short name.
        seed: The seed of its initial weights, its dropout and the order of its examples.
        summary: What a run tells, ready for JSON: seconds, epochs, parameters, history.
        probabilities: For each part of the data, an array of shape (examples, classes).
        keras_model: The path of the saved model, or None where the model is none of Keras's.
    """

    model: str
    seed: int
    summary: dict[str, Any]
    probabilities: dict[str, np.ndarray]
    keras_model: Path | None = None

    @property
    def name(self) -> str:
        """The model and the seed, as its folder is called."""
        return f"{self.model}-seed{self.seed}"


class StudyFolder:
    """The folder that a study writes, held by one process from `open` to the end of the `with` block.

    Args:
        path: The folder. It is made when the block is entered.

    Raises:
        UsageError: the path is no folder, or holds files that no study wrote, or another process holds it.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._lock: IO[str] | None = None

    def check(self, configuration: Mapping[str, Any] | None = None, fresh: bool = False) -> None:
        """Raise where a study cannot be written here, so far as can be told without writing.

        Args:
            configuration: What `claim` will be given, where it is known.
            fresh: Likewise.

        Raises:
            UsageError: as entering the block and `claim` do.
        """
        self._check_place()
        if (self.path / LOCK).exists():
            with open(self.path / LOCK, "a+", encoding="ascii") as stream:
                self._take(stream)
        if configuration is not None and not fresh:
            self._check_same(configuration)

    def __enter__(self) -> "StudyFolder":
        self._check_place()
        (self.path / RUNS).mkdir(parents=True, exist_ok=True)
        self._lock = open(self.path / LOCK, "a+", encoding="ascii")
        try:
            self._take(self._lock)
        except UsageError:
            self._lock.close()
            raise
        self._lock.truncate(0)
        self._lock.write(str(os.getpid()))
        self._lock.flush()
        for folder in (self.path, self.path / "figures", *(self.path / RUNS).iterdir()):
            _files.sweep(folder)
        return self

    def __exit__(self, *_: object) -> None:
        # Closing gives the lock back. The file stays: removing it would let two processes lock two files of one name.
        if self._lock is not None:
            self._lock.close()

    def claim(self, configuration: Mapping[str, Any], fresh: bool = False) -> None:
        """Make the folder that of `configuration`, or raise where it is another's.

        Args:
            configuration: What decides the runs, ready for JSON: a flat mapping.
            fresh: Remove an earlier study first.

        Raises:
            UsageError: the folder holds a study of another configuration; the message says what differs.
        """
        if fresh:
            self._clear()
        self._check_same(configuration)
        if self._configuration() is None:
            (self.path / RUNS).mkdir(exist_ok=True)
            _files.write_json(self.path / CONFIGURATION, {MARK: 1, "configuration": configuration})

    def keep(
        self,
        model: str,
        seed: int,
        summary: Mapping[str, Any],
        probabilities: Mapping[str, np.ndarray],
        save_model: Callable[[Path], None] | None = None,
    ) -> Run:
        """Keep a finished run: its arrays and its model first, then, as the sign that it is whole, its summary.

        Args:
            model: The model's short name.
            seed: The run's seed.
            summary: What the run tells, ready for JSON.
            probabilities: For each part of the data, an array of shape (examples, classes).
            save_model: Writes the model to the path that it is given.

        Returns:
            The run, as `finished` will return it.
        """
        folder = self.path / RUNS / f"{model}-seed{seed}"
        with _files.replacing(folder / "predictions.npz") as temporary, open(temporary, "wb") as stream:
            arrays: dict[str, Any] = dict(probabilities)
            np.savez_compressed(stream, **arrays)
        if save_model is not None:
            with _files.replacing(folder / "model.keras") as temporary:
                save_model(temporary)
        kept = [path for path in (folder / "predictions.npz", folder / "model.keras") if path.exists()]
        document = {
            "model": model,
            "seed": seed,
            "summary": dict(summary),
            "sha256": {path.name: _sha256(path) for path in kept},
        }
        _files.write_json(folder / "run.json", document)
        run = self.finished(model, seed)
        if run is None:
            raise OSError(f"{folder} was changed by another program while it was written.")
        return run

    def finished(self, model: str, seed: int) -> Run | None:
        """Return a run that was kept, or None where there is none or its files are not as they were written."""
        folder = self.path / RUNS / f"{model}-seed{seed}"
        try:
            document = json.loads((folder / "run.json").read_text(encoding="utf-8"))
            if any(_sha256(folder / name) != digest for name, digest in document["sha256"].items()):
                return None
            with np.load(folder / "predictions.npz", allow_pickle=False) as archive:
                probabilities = {name: archive[name] for name in archive.files}
            saved = folder / "model.keras" if "model.keras" in document["sha256"] else None
            return Run(model, seed, document["summary"], probabilities, saved)
        except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError, zipfile.BadZipFile):
            return None

    def _check_place(self) -> None:
        """Raise where there is a file, or a folder of something else."""
        if self.path.exists() and not self.path.is_dir():
            raise UsageError(f"--out must be a folder. {self.path} is a file: use another --out.")
        if self._configuration() is None and (foreign := next(self._entries(), None)):
            raise UsageError(
                f"--out must be an empty folder or one that an earlier study wrote. {self.path} holds "
                f"{foreign.name!r}: use another --out."
            )

    def _check_same(self, configuration: Mapping[str, Any]) -> None:
        """Raise where the folder holds a study of another configuration."""
        found, wanted = self._configuration(), json.loads(json.dumps(configuration))
        if found is not None and (differing := _differences(found, wanted)):
            raise UsageError(
                f"{self.path} holds a study with {'; '.join(differing)}. "
                "Use --fresh to replace it, or another --out to keep it."
            )

    def _take(self, stream: IO[str]) -> None:
        """Lock the folder by its open lock file, or raise where another process has it."""
        if not _lock(stream):
            stream.seek(0)
            raise UsageError(
                f"another process (id {stream.read().strip() or 'unknown'}) is writing {self.path}. Wait until it ends, or "
                "use another --out."
            )

    def _entries(self) -> Iterator[Path]:
        """Yield what lies in the folder and is neither its lock nor an unfinished file of a killed study."""
        if not self.path.is_dir():
            return
        for path in sorted(self.path.iterdir()):
            unfinished = path.name == RUNS and path.is_dir() and not any(path.iterdir())
            if path.name != LOCK and not _files.is_temporary(path) and not unfinished:
                yield path

    def _configuration(self) -> dict[str, Any] | None:
        """Return the configuration of the study that the folder holds, or None where it holds none."""
        try:
            found = json.loads((self.path / CONFIGURATION).read_text(encoding="utf-8"))
            return found["configuration"] if found[MARK] == 1 else None
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return None

    def _clear(self) -> None:
        """Remove an earlier study, its configuration last, and nothing that no study wrote."""
        for name in (RUNS, *OUTPUTS):
            path = self.path / name
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)


def _differences(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """Tell in words what two configurations differ in."""
    return [
        f"{name.replace('_', ' ')} {found.get(name)}, not {wanted.get(name)}"
        for name in {**wanted, **found}
        if found.get(name) != wanted.get(name)
    ]


def _sha256(path: Path) -> str:
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _lock(stream: IO[str]) -> bool:
    """Lock a file for this process, until it closes it or dies. Return whether it was free."""
    try:
        import fcntl
    except ImportError:  # Windows
        import msvcrt

        with contextlib.suppress(OSError):
            # Far past the process id that the file holds, which others must be able to read.
            stream.seek(1 << 20)
            msvcrt.locking(stream.fileno(), msvcrt.LK_NBLCK, 1)  # pyright: ignore[reportAttributeAccessIssue]
            return True
        return False
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
