"""Parts of an explanation that are stored as soon as they are computed, so that one that was stopped goes on."""

import contextlib
import hashlib
import json
import shutil
import time
import zipfile
from collections.abc import Callable, Mapping
from os import PathLike
from pathlib import Path
from typing import Any, Self

import keras
import numpy as np

import limelight
from limelight import _files, _keras_private
from limelight.explanation.subjects import Subject
from limelight.inspection._observed_attention import to_numpy

# Seconds between two files: what is computed in less is lost when the process ends.
_INTERVAL = 5.0
_DIGEST = 16


class Checkpoint:
    """Arrays by name in the files of a folder, and the predictions of a subject.

    Each file is written atomically, and holds what was computed since the one before. A damaged file counts as missing.

    Args:
        folder: where the files are; None to store nothing.
        subject: the model and its examples, whose predictions are stored.
    """

    def __init__(self, folder: str | PathLike[str] | None, subject: Subject) -> None:
        self.folder, self.subject = None if folder is None else Path(folder), subject
        self._arrays: dict[str, np.ndarray] = {}
        self._new: dict[str, np.ndarray] = {}
        self._stored_keys: set[bytes] = set()
        self._num_files = 0
        self._written = time.perf_counter()
        if self.folder is not None:
            self._read(self.folder)

    @property
    def is_empty(self) -> bool:
        """True if nothing was stored earlier."""
        return not self._arrays and not self._stored_keys

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: Any, error: Any, traceback: Any) -> None:
        if error is not None:
            with contextlib.suppress(OSError):
                self.write()

    def compute(self, name: str, compute: Callable[[], Mapping[str, Any]]) -> dict[str, np.ndarray]:
        """Return the arrays that were stored under a name; compute and store them if there are none."""
        prefix = f"{name}/"
        stored = {key.removeprefix(prefix): each for key, each in self._arrays.items() if key.startswith(prefix)}
        if stored:
            return stored
        arrays = {key: np.asarray(value) for key, value in compute().items()}
        if self.folder is not None:
            self._new.update({prefix + key: value for key, value in arrays.items()})
            self.write_if_due()
        return arrays

    def write_if_due(self) -> None:
        """Write a file if the last one is some seconds old."""
        if time.perf_counter() - self._written >= _INTERVAL:
            self.write()

    def write(self) -> None:
        """Write what is new to a file.

        Raises:
            OSError: the folder cannot be written.
        """
        if self.folder is None:
            return
        memory = self.subject.memory
        keys = [key for key in memory if key not in self._stored_keys]
        if keys or self._new:
            arrays: dict[str, Any] = dict(self._new)
            if keys:
                digests = np.frombuffer(b"".join(keys), np.uint8).reshape(-1, _DIGEST)
                arrays |= {"keys": digests, "outputs": np.stack([memory[key] for key in keys])}
            self._num_files += 1
            with (
                _files.atomic_write(self.folder / f"part-{self._num_files:05}.npz") as temporary,
                open(temporary, "wb") as stream,
            ):
                np.savez(stream, **arrays)
            self._stored_keys.update(keys)
            self._new = {}
        self._written = time.perf_counter()

    def remove(self) -> None:
        """Remove the folder: the explanation is complete."""
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _read(self, folder: Path) -> None:
        for path in sorted(folder.glob("part-*.npz")):
            self._num_files = max(self._num_files, int(path.stem.removeprefix("part-")))
            try:
                # numpy leaves a damaged file open that it has opened itself.
                with path.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
                    arrays = {name: archive[name] for name in archive.files}
                keys = [row.tobytes() for row in arrays.pop("keys", np.zeros((0, _DIGEST), np.uint8))]
                outputs = arrays.pop("outputs", np.zeros((0, 0)))
            except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
                continue
            self.subject.memory.update(zip(keys, outputs, strict=True))
            self._stored_keys.update(keys)
            self._arrays.update(arrays)


def compute_fingerprint(model: Any, subject: Subject, settings: Mapping[str, Any]) -> str:
    """Return the name under which the parts of an explanation are stored: a hash of the model, the examples and the settings.

    Args:
        model: the estimator or the Keras model that is explained.
        subject: its examples.
        settings: everything else that the numbers depend on, ready for JSON.
    """
    digest = hashlib.sha256()
    network = model if isinstance(model, keras.Model) else model.model_
    versions = [limelight.__version__, keras.__version__, keras.backend.backend()]
    layers = [(type(layer).__name__, layer.name) for layer in _keras_private.iterate_layers(network)]
    with contextlib.suppress(Exception):
        # A layer of the user's may have no configuration.
        layers.append(("configuration", network.to_json()))
    described = {
        "versions": versions,
        "layers": layers,
        "settings": settings,
        "perturbation": subject.perturbation.name,
        "output": (subject.output, subject.explained),
    }
    digest.update(json.dumps(described, sort_keys=True, default=str).encode())
    examples = [*subject.sequences, *(subject.context or {}).values()]
    labels = [] if subject.labels is None else [subject.labels]
    for array in (*(to_numpy(weight.value) for weight in network.weights), *examples, *labels):
        array = np.ascontiguousarray(array)
        digest.update(f"{array.dtype} {array.shape}".encode() + array.tobytes())
    return digest.hexdigest()
