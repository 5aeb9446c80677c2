"""Maps in a file: arrays and an index of names and numbers, no code. What comes in is checked before it is believed."""

import dataclasses
import io
import json
import math
import os
import re
import struct
import zipfile
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from limelight import _files
from limelight.maps._attention_map import AttentionMap
from limelight.maps.sources import QKSource, StatisticsSource, WeightSource
from limelight.maps.stored_mask import StoredMask
from limelight.maps.string_arrays import spelled, unspelled

FORMAT, VERSION = "limelight.maps", 1
_INDEX_BYTES = 4 << 20
_DIRECTORY_BYTES = 16 << 20
_DTYPES = {"<f2", "<f4", "<f8", "<i8", "|u1", "|b1"}
_HEADER = re.compile(
    rb"\{'descr': '([<|][a-z][0-9])', 'fortran_order': False, 'shape': \(((?:[0-9]{1,15}, ?)*[0-9]{0,15})\), \} *\n"
)
_SOURCES: dict[str, type] = {"qk": QKSource, "weights": WeightSource, "statistics": StatisticsSource}


class ArtifactError(ValueError):
    """A file is damaged, or is not what it should be."""


def save(maps: Mapping[str, AttentionMap], path: str | os.PathLike[str]) -> None:
    """Write maps to a file, whole or not at all."""
    arrays: dict[str, np.ndarray] = {}
    texts: list[Any] = []
    entries = []
    for number, one in enumerate(maps.values()):
        entry: dict[str, Any] = {"path": one.path, "call": one.call, "layer": one.layer}
        entry["kind"] = next(name for name, kind in _SOURCES.items() if isinstance(one.source, kind))
        for part in (one.source, one.source.allowed):
            for field in dataclasses.fields(part):
                value = getattr(part, field.name)
                if isinstance(value, np.ndarray):
                    arrays[f"{number}.{_stored(part, field.name)}"] = storable(value)
                elif not isinstance(value, StoredMask):
                    entry[field.name] = value
        for name in ("tokens", "query_tokens"):
            value = getattr(one, name)
            if value is not None and value not in texts:
                texts.append(value)
            entry[name] = None if value is None else texts.index(value)
        entries.append(entry)
    for number, text in enumerate(texts):
        arrays |= {f"text{number}.{name}": array for name, array in spelled(text).items()}
    index = json.dumps({"format": FORMAT, "version": VERSION, "texts": len(texts), "maps": entries}).encode()
    if len(index) > _INDEX_BYTES:
        raise ValueError(f"The index of the maps must stay under {_INDEX_BYTES} bytes. Received: {len(index)} bytes.")
    arrays = {"index": np.frombuffer(index, np.uint8), **arrays}
    with _files.replacing(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
        for name, array in arrays.items():
            with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as stream:
                np.lib.format.write_array(stream, np.ascontiguousarray(array), version=(1, 0), allow_pickle=False)


def load(path: str | os.PathLike[str]) -> list[AttentionMap]:
    """Read the maps of a file.

    Raises:
        ArtifactError: the file is damaged, or is something else.
        OSError: there is no such file, or it cannot be read.
    """
    try:
        with open(path, "rb") as stream:
            return _maps(_arrays(stream))
    except OSError:
        raise
    except ArtifactError as error:
        raise ArtifactError(f"{os.fspath(path)}: {error}") from None
    except Exception as error:
        # Whatever a hostile file makes of zipfile, json or the checks of the maps themselves, it is this one error.
        raise ArtifactError(
            f"{os.fspath(path)}: not a file of attention maps ({type(error).__name__}: {error})"
        ) from None


def storable(array: np.ndarray) -> np.ndarray:
    """An array in one of the dtypes that a file may hold."""
    if array.dtype.kind in "iu" and array.dtype != np.uint8:
        return array.astype("<i8")
    return array if array.dtype.str in _DTYPES else array.astype("<f4")


def _stored(part: Any, field: str) -> str:
    """The name of an array in a file: `array` belongs to the weights or to the permissions."""
    return f"allowed.{field}" if isinstance(part, StoredMask) else field


def _arrays(stream: Any) -> dict[str, np.ndarray]:
    """All arrays of a file, each read only once its declared size is seen to be its stored size."""
    size = stream.seek(0, os.SEEK_END)
    if _directory_bytes(stream, size) > _DIRECTORY_BYTES:
        raise ArtifactError(f"the list of its members is larger than {_DIRECTORY_BYTES} bytes")
    with zipfile.ZipFile(stream) as archive:
        members = archive.infolist()
        if len({member.filename for member in members}) != len(members):
            raise ArtifactError("two members have the same name")
        for member in members:
            if member.compress_type != zipfile.ZIP_STORED or member.file_size != member.compress_size:
                raise ArtifactError(f"{member.filename[:80]!r} is compressed; maps are stored as they are")
            if not re.fullmatch(r"[a-z0-9_.]{1,60}\.npy", member.filename):
                raise ArtifactError(f"unexpected member {member.filename[:80]!r}")
        if sum(member.file_size for member in members) > size:
            raise ArtifactError("its members declare more bytes than the file has")
        return {member.filename[:-4]: _array(archive, member) for member in members}


def _array(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> np.ndarray:
    with archive.open(member) as stream:
        start = stream.read(10)
        if start[:8] != b"\x93NUMPY\x01\x00":
            raise ArtifactError(f"{member.filename!r} is not a numpy array")
        length = int.from_bytes(start[8:10], "little")
        header = _HEADER.fullmatch(stream.read(length))
        dtype = header[1].decode() if header else ""
        if header is None or dtype not in _DTYPES:
            raise ArtifactError(f"{member.filename!r} has a header or dtype that maps do not have")
        shape = tuple(int(number) for number in header[2].decode().replace(" ", "").split(",") if number)
        declared = math.prod(shape) * np.dtype(dtype).itemsize
        if declared != member.file_size - 10 - length:
            raise ArtifactError(
                f"{member.filename!r} declares {declared} bytes, stores {member.file_size - 10 - length}"
            )
        if len(shape) > 16 or (member.filename == "index.npy" and declared > _INDEX_BYTES):
            raise ArtifactError(f"{member.filename!r} is too large")
        return np.frombuffer(stream.read(), dtype).reshape(shape)


def _directory_bytes(stream: Any, size: int) -> int:
    """How long a zip file says its list of members is. zipfile makes an object for each before anyone can look."""
    tail_size = min(size, 22 + (1 << 16) + 20)
    stream.seek(size - tail_size)
    tail = stream.read(tail_size)
    end = tail.rfind(b"PK\x05\x06")
    if end < 0 or len(tail) - end < 22:
        raise ArtifactError("not a file of attention maps (no list of members)")
    locator = tail[max(0, end - 20) : end]
    if locator[:4] != b"PK\x06\x07":
        return struct.unpack("<L", tail[end + 12 : end + 16])[0]
    stream.seek(struct.unpack("<Q", locator[8:16])[0])
    record = stream.read(56)
    return struct.unpack("<Q", record[40:48])[0]


def _maps(arrays: dict[str, np.ndarray]) -> list[AttentionMap]:
    index = json.load(io.BytesIO(arrays["index"].tobytes()))
    if index["format"] != FORMAT or index["version"] != VERSION:
        raise ArtifactError(f"format {index['format']!r} version {index['version']!r}; this reads {FORMAT!r} {VERSION}")
    texts = [unspelled(_group(arrays, f"text{number}")) for number in range(_whole(index["texts"], len(arrays)))]
    return [_map(entry, _group(arrays, str(number)), texts) for number, entry in enumerate(index["maps"])]


def _group(arrays: dict[str, np.ndarray], name: str) -> dict[str, np.ndarray]:
    return {key[len(name) + 1 :]: array for key, array in arrays.items() if key.startswith(f"{name}.")}


def _map(entry: dict[str, Any], arrays: dict[str, np.ndarray], texts: list[Any]) -> AttentionMap:
    def values(kind: type, prefix: str, numbers: Iterable[str]) -> dict[str, Any]:
        names = {field.name for field in dataclasses.fields(kind)}
        found = {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}
        found = {name: array for name, array in found.items() if name in names}
        return {**found, **{name: _number(entry[name]) for name in numbers}}

    source = _SOURCES[entry["kind"]]
    allowed = StoredMask(**values(StoredMask, "allowed.", ("left", "right", "shift")))
    numbers = ("scale", "softcap") if source is QKSource else ()
    tokens = [
        None if entry[name] is None else texts[_whole(entry[name], len(texts))] for name in ("tokens", "query_tokens")
    ]
    return AttentionMap(
        _text(entry["path"]),
        source(**values(source, "", numbers), allowed=allowed),
        _whole(entry["call"], 1 << 31),
        _text(entry["layer"]),
        *tokens,
    )


def _whole(value: Any, limit: int) -> int:
    if type(value) is not int or not 0 <= value <= limit:
        raise ArtifactError(f"a number of the index is not a whole number of 0 to {limit}: {value!r:.80}")
    return value


def _number(value: Any) -> Any:
    if value is not None and (type(value) not in (int, float) or not abs(value) < 1 << 53):
        raise ArtifactError(f"a number of the index is not one: {value!r:.80}")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ArtifactError(f"a name of the index is not one: {value!r:.80}")
    return value
