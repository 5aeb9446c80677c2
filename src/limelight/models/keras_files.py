"""Load .keras files of unknown origin: a file is checked before Keras reads it.

A file that passes holds plain members as Keras writes them, names no code, and declares no more bytes than it stores.
"""

import contextlib
import io
import json
import math
import os
import re
import stat
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any

import h5py
import keras

from limelight import _files, _keras_private
from limelight.exceptions import DataError

CONFIG, WEIGHTS = "config.json", "model.weights.h5"
_MEMBERS = {CONFIG, WEIGHTS, "metadata.json"}
_MAX_CONFIG_BYTES = 16 << 20
# Members and groups are objects in memory as soon as a library lists them.
_MAX_DIRECTORY_BYTES, _MAX_GROUPS = 16 << 20, 100_000
# Variables that a file does not store, such as the states of random generators, and a wider dtype than the stored one.
_MAX_UNSTORED_BYTES, _MAX_DTYPE_RATIO = 64 << 20, 4
# Numbers of one output for one example: 2 GiB of float32.
_MAX_OUTPUT_SIZE = 1 << 29
# Packages whose classes Keras imports by name. All others must have been registered.
_PACKAGES = {"keras", "keras_hub", "keras_cv", "keras_nlp", "builtins", "limelight"}
# Layers whose config is the code or the path of a module of a backend.
_FOREIGN_MODULES = {"TFSMLayer", "TorchModuleWrapper"}


class _RefusedError(ValueError):
    """A file is not as Keras writes it; the message is a sentence that says why."""


def load_keras_model(path: str | os.PathLike[str], *, custom_objects: dict[str, Any] | None = None) -> Any:
    """Return the Keras model in a .keras file, which may come from anywhere: nothing in it is run as code.

    Args:
        path: The file.
        custom_objects: Layers of your own by name, as `keras.models.load_model` takes them.

    Raises:
        DataError: The file is missing or damaged, is not as Keras writes it (see `check_keras_file`), names layers that are not
            registered, or declares weights that it does not store.
    """
    weight_bytes = check_keras_file(path, custom_objects=custom_objects)
    max_bytes = _MAX_DTYPE_RATIO * weight_bytes + _MAX_UNSTORED_BYTES
    with warnings.catch_warnings(), _keras_private.limit_variables(max_bytes) as limit:
        warnings.simplefilter("ignore")
        try:
            model = keras.models.load_model(path, custom_objects=custom_objects, compile=False, safe_mode=True)
        except Exception as error:
            reason = f"Keras cannot load it. {_describe(error)}"
            if limit.is_exceeded:
                reason = f"Its configuration declares more weights than the {weight_bytes:,} bytes that it stores."
            raise DataError(_message(path, reason)) from error
    size = max((math.prod(filter(None, shape)) for shape in _keras_private.iterate_output_shapes(model)), default=0)
    if size > _MAX_OUTPUT_SIZE:
        raise DataError(_message(path, f"One of its layers returns {size:,} numbers for each example."))
    return model


def check_keras_file(path: str | os.PathLike[str], *, custom_objects: dict[str, Any] | None = None) -> int:
    """Check that a file is a .keras file as Keras writes it, without loading it, and return the bytes of its weights.

    Its members have the names that Keras gives, are stored uncompressed, and are neither links nor duplicates. The
    configuration has at most 16 MiB, holds no code, and names only classes of Keras, of its hubs, of limelight, and registered
    ones. The weights are plain arrays of as many bytes as they declare, without links to other files or within the file.

    Args:
        path: The file.
        custom_objects: Further classes and functions that the configuration may name.

    Raises:
        DataError: The file is missing or damaged, or anything of this does not hold.
    """
    try:
        with open_archive(path) as archive:
            _check_members(archive.infolist(), os.path.getsize(path))
            config = json.loads(archive.read(CONFIG))
            # It is not used: the loss of a training may be anything.
            config.pop("compile_config", None)
            check_config(config, custom_objects)
            return _check_weights(archive.read(WEIGHTS))
    except _RefusedError as error:
        raise DataError(_message(path, str(error))) from error
    except MemoryError:
        raise
    except Exception as error:
        # A hostile file may raise anything in zipfile, json and h5py.
        if isinstance(error, OSError) and error.strerror:
            raise DataError(f"{str(path)!r} must be a .keras file. {error.strerror}. Check the path.") from error
        raise DataError(
            f"{str(path)!r} must be a .keras file. It is damaged, or another kind of file. Check the path."
        ) from error


@contextlib.contextmanager
def open_archive(path: str | os.PathLike[str]) -> Iterator[zipfile.ZipFile]:
    """Open a .keras file, whose list of members may take 16 MiB.

    Raises:
        ValueError: The list is longer.
    """
    with open(path, "rb") as stream:
        if (_files.zip_directory_bytes(stream) or 0) > _MAX_DIRECTORY_BYTES:
            raise _RefusedError("The list of its members is too long.")
        with zipfile.ZipFile(stream) as archive:
            yield archive


def check_config(config: Any, custom_objects: dict[str, Any] | None = None) -> None:
    """Check that a configuration holds no code, and names no class or function of an unknown package.

    Raises:
        ValueError: It does; the message is a sentence.
    """
    for entry in _iterate_objects(config):
        name, module = str(entry["class_name"]), entry.get("module")
        inner = entry.get("config")
        function = inner.get("function") if name == "Lambda" and isinstance(inner, dict) else {"class_name": "function"}
        if name == "__lambda__" or not isinstance(function, dict) or function.get("class_name") != "function":
            raise _RefusedError(
                "The file holds Python code, which is not run. If you trust it, load it yourself and use limelight.capture."
            )
        if name in _FOREIGN_MODULES:
            raise _RefusedError(f"It holds a {name}, which runs a module of another library.")
        if module is None or str(module).partition(".")[0] in _PACKAGES:
            continue
        names = (entry.get("registered_name"), name, inner if isinstance(inner, str) else None)
        if not any(each and keras.saving.get_registered_object(str(each), custom_objects) for each in names):
            shown = ".".join(str(part)[:80] for part in (module, inner if isinstance(inner, str) else name))
            raise _RefusedError(
                f"It names {shown}, which is not registered. If you trust the file, import the package that registers it; "
                "`limelight show` takes --import PACKAGE."
            )


def _iterate_objects(config: Any) -> Iterator[dict[str, Any]]:
    """Go through the serialized objects of a configuration: dictionaries with a class name."""
    waiting = [config]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            if "class_name" in value:
                yield value
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value


def _check_members(members: list[zipfile.ZipInfo], file_size: int) -> None:
    names = [member.filename for member in members]
    if CONFIG not in names:
        raise _RefusedError("It has no config.json. Save the model with model.save.")
    if WEIGHTS not in names:
        raise _RefusedError(f"It has no {WEIGHTS}. Save the model with model.save.")
    if len(set(names)) != len(names):
        raise _RefusedError("Two of its members have the same name.")
    for member in members:
        name = member.filename
        parts = PurePosixPath(name).parts
        is_asset = parts[:1] == ("assets",) and not {".", ".."} & {*name.split("/")} and not re.search(r"[\\:\0]", name)
        kind = stat.S_IFMT(member.external_attr >> 16)
        if (name not in _MEMBERS and not is_asset) or kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise _RefusedError(f"It holds {name[:80]!r}, which is no file of a Keras model.")
        if member.compress_type != zipfile.ZIP_STORED or member.file_size != member.compress_size:
            raise _RefusedError(f"{name[:80]!r} is compressed; Keras stores files as they are. Save the model again.")
        if member.flag_bits & 1:
            raise _RefusedError(f"{name[:80]!r} is encrypted.")
        if name == CONFIG and member.file_size > _MAX_CONFIG_BYTES:
            raise _RefusedError(f"Its configuration is larger than {_MAX_CONFIG_BYTES >> 20} MiB.")
    if sum(member.file_size for member in members) > file_size:
        raise _RefusedError("Its members declare more bytes than the file has.")


def _check_weights(content: bytes) -> int:
    """Check a file of weights, and return their bytes."""
    total, count, groups = 0, 0, set()
    with h5py.File(io.BytesIO(content), "r") as file:
        waiting: list[Any] = [file]
        while waiting:
            group = waiting.pop()
            address = h5py.h5o.get_info(group.id).addr
            if address in groups:
                raise _RefusedError("A group of its weights stands in two places.")
            groups.add(address)
            for name in group:
                count += 1
                if count > _MAX_GROUPS:
                    raise _RefusedError("Its weights have too many groups.")
                if group.get(name, getclass=True, getlink=True) is not h5py.HardLink:
                    raise _RefusedError(f"Its weights hold the link {name[:80]!r}.")
                item = group[name]
                if isinstance(item, h5py.Group):
                    waiting.append(item)
                    continue
                _check_dataset(item)
                total += item.id.get_storage_size()
    if total > len(content):
        raise _RefusedError("Its weights declare more bytes than the file has.")
    return total


def _check_dataset(item: Any) -> None:
    name = str(item.name)[:80]
    if not isinstance(item, h5py.Dataset):
        raise _RefusedError(f"Its weights hold {name!r}, which is no array.")
    if item.external or item.is_virtual:
        raise _RefusedError(f"The weights {name!r} lie in another file.")
    # bfloat16, which HDF5 does not have, is stored as opaque bytes.
    if item.chunks or item.dtype.kind not in "fiubV" or item.dtype.names or item.shape is None:
        raise _RefusedError(f"The weights {name!r} are compressed, or are not numbers. Save the model again.")
    declared = math.prod(item.shape) * item.dtype.itemsize
    if declared != item.id.get_storage_size():
        raise _RefusedError(
            f"The weights {name!r} declare {declared:,} bytes, and {item.id.get_storage_size():,} are stored."
        )


def _message(path: str | os.PathLike[str], reason: str) -> str:
    return f"{str(path)!r} must be a .keras file as Keras writes it. {reason}"


def _describe(error: BaseException) -> str:
    """Return the name of an error of Keras's and the first line of its message."""
    line = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    return f"{type(error).__name__}: {line[:300]}" if line else type(error).__name__
