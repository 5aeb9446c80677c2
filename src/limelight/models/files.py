"""One file for an estimator: a .keras file of Keras's, with what raw inputs need as an asset inside."""

import dataclasses
import json
import os
import zipfile
from pathlib import Path
from typing import Any

import keras
import numpy as np

from limelight import _files
from limelight.exceptions import DataError
from limelight.models.keras_files import check_config, load_keras_model, open_archive

_MEMBER = "assets/limelight/estimator.json"
_FORMAT, _VERSION = "limelight.estimator", 1
_MAX_BYTES = 256 * 2**20


def save(estimator: Any, path: str | os.PathLike[str]) -> None:
    """Write a fitted estimator to a .keras file, atomically.

    Raises:
        ValueError: The name does not end with ".keras".
    """
    if Path(path).suffix != ".keras":
        raise ValueError(f'`path` must end with ".keras". Received: {str(path)!r}.')
    document = {
        "format": _FORMAT,
        "version": _VERSION,
        "class": type(estimator).__name__,
        "params": {name: _encode(value) for name, value in estimator.get_params(deep=False).items()},
        "inputs": estimator.inputs_.to_dict(),
        "target": estimator.target_.to_dict(),
        "history": estimator.history_,
    }
    with _files.atomic_write(path) as temporary:
        estimator.model_.save(temporary)
        with zipfile.ZipFile(temporary, "a") as archive:
            archive.writestr(_MEMBER, json.dumps(document, ensure_ascii=False, allow_nan=False))


def load(path: str | os.PathLike[str], *, custom_objects: dict[str, Any] | None = None) -> Any:
    """Return an estimator that `save` wrote, on the current backend.

    Args:
        path: The .keras file.
        custom_objects: Layers of your own by name, as `keras.models.load_model` takes them.

    Raises:
        DataError: The file is missing or damaged, is not as Keras writes it, or is a Keras model without an estimator.

    Example:
        >>> import limelight as ll, tempfile
        >>> model = ll.models.TextClassifier(encoder=None, epochs=1, training={"epoch_steps": 1}, verbose=False)
        >>> _ = model.fit(["good", "bad"] * 10, [1, 0] * 10)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     model.save(f"{folder}/model.keras")
        ...     loaded = ll.models.load(f"{folder}/model.keras")
        >>> bool((loaded.predict(["good"]) == model.predict(["good"])).all())
        True
    """
    document = read_description(path)
    estimator_class = _find_class(document.get("class"))
    if document.get("version") != _VERSION or estimator_class is None:
        raise DataError(
            f"{str(path)!r} must hold an estimator of version {_VERSION}. Received: {str(document.get('class'))[:60]!r} of "
            f"version {document.get('version')!r}. Save it again with this version of limelight."
        )
    try:
        check_config(document, custom_objects)
        params = {name: _decode(value) for name, value in document["params"].items()}
        inputs = estimator_class._inputs_class.from_dict(document["inputs"])
        target = estimator_class._target_class.from_dict(document["target"])
        model = load_keras_model(path, custom_objects=custom_objects)
        estimator = estimator_class(**params).restore(inputs, target, model, document["history"])
    except (DataError, MemoryError):
        raise
    except Exception as error:
        # A hostile description may raise anything.
        raise DataError(f"{str(path)!r} must be a whole file of an estimator. It cannot be read: {error}") from error
    return estimator


def holds_estimator(path: str | os.PathLike[str]) -> bool:
    """Return True if a .keras file holds an estimator, False if it holds a Keras model alone.

    Raises:
        DataError: The file is missing, or is no .keras file.
    """
    try:
        with open_archive(path) as archive:
            return _MEMBER in archive.namelist()
    except Exception as error:
        raise DataError(f"{str(path)!r} must be a .keras file. {_describe(error)}. Check the path.") from error


def read_description(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the description of the estimator in a .keras file.

    Raises:
        DataError: The file is missing or damaged, or is a Keras model without an estimator.
    """
    requirement = f"{str(path)!r} must be a .keras file that an estimator of limelight wrote"
    try:
        with open_archive(path) as archive:
            if _MEMBER not in archive.namelist():
                raise DataError(
                    f"{requirement}. It holds a Keras model alone: see it with `limelight show`, or load it with "
                    "keras.models.load_model."
                )
            if archive.getinfo(_MEMBER).file_size > _MAX_BYTES:
                raise DataError(f"{requirement}. Its description is larger than {_MAX_BYTES >> 20} MiB.")
            document = json.loads(archive.read(_MEMBER))
    except (DataError, MemoryError):
        raise
    except Exception as error:
        # A hostile file may raise anything in zipfile and json.
        raise DataError(f"{requirement}. {_describe(error)}. Check the path.") from error
    if not isinstance(document, dict) or document.get("format") != _FORMAT:
        raise DataError(f"{requirement}. Its description is of another kind.")
    return document


def _describe(error: Exception) -> str:
    """Return why a file cannot be read."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return "It is damaged, or another kind of file"


def _find_class(name: Any) -> Any:
    """Return the public estimator of a name, or None."""
    from limelight import models

    value = getattr(models, name) if name in models.__all__ else None
    return value if isinstance(value, type) and hasattr(value, "_inputs_class") else None


def _encode(value: Any) -> Any:
    """Return a parameter of an estimator as JSON can hold it."""
    if isinstance(value, keras.Layer):
        return {"keras": keras.saving.serialize_keras_object(value)}
    if isinstance(value, dict):
        return {"items": [[_encode(key), _encode(item)] for key, item in value.items()]}
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, list | tuple):
        return [_encode(item) for item in value]
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if dataclasses.is_dataclass(value) or not isinstance(value, str | int | float | bool | None):
        return None  # such as a generator of random numbers, whose state is used up
    return value


def _decode(value: Any) -> Any:
    if isinstance(value, list):
        return [_decode(item) for item in value]
    if not isinstance(value, dict):
        return value
    if "keras" in value:
        return keras.saving.deserialize_keras_object(value["keras"])
    return {_decode(key): _decode(item) for key, item in value["items"]}
