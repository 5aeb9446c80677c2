"""Attention maps in a file: arrays, and an index of names and numbers in JSON. Everything that is read is checked first.

The file is an uncompressed .npz. Member `index` holds the JSON as bytes; `{i}.{field}` an array of the i-th map's source,
`{i}.mask.{field}` one of its mask, and `tokens{i}.{field}` the i-th list of tokens, which several maps may share.
"""

import dataclasses
import io
import itertools
import json
import math
import os
import re
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from limelight import _files
from limelight.maps._attention_map import AttentionMap
from limelight.maps.sources import QKSource, StatisticsSource, WeightSource
from limelight.maps.stored_mask import StoredMask
from limelight.maps.tokens import Tokens

FORMAT, VERSION = "limelight.maps", 1
_MAX_INDEX_BYTES = 4 << 20
_MAX_DIRECTORY_BYTES = 16 << 20
_DTYPES = {"<f2", "<f4", "<f8", "<i8", "|u1", "|b1"}
_HEADER = re.compile(
    rb"\{'descr': '([<|][a-z][0-9])', 'fortran_order': False, 'shape': \(((?:[0-9]{1,15}, ?)*[0-9]{0,15})\), \} *\n"
)
_SOURCES: dict[str, type] = {"qk": QKSource, "weights": WeightSource, "statistics": StatisticsSource}


class ArtifactError(ValueError):
    """A file is damaged, or of another format."""


def save(maps: Mapping[str, AttentionMap], path: str | os.PathLike[str]) -> None:
    """Write maps to a file, atomically."""
    arrays: dict[str, np.ndarray] = {}
    token_lists: list[Any] = []
    entries = []
    for number, attention_map in enumerate(maps.values()):
        source = attention_map.source
        entry: dict[str, Any] = {name: getattr(attention_map, name) for name in ("path", "call_index", "layer")}
        entry["source"] = next(name for name, kind in _SOURCES.items() if isinstance(source, kind))
        for part, prefix in ((source, f"{number}."), (source.mask, f"{number}.mask.")):
            for field in dataclasses.fields(part):
                value = getattr(part, field.name)
                if isinstance(value, np.ndarray):
                    arrays[prefix + field.name] = storable(value)
                elif not isinstance(value, StoredMask):
                    entry[field.name] = value
        for name in ("tokens", "query_tokens"):
            tokens = getattr(attention_map, name)
            if tokens is not None and tokens not in token_lists:
                token_lists.append(tokens)
            entry[name] = None if tokens is None else token_lists.index(tokens)
        entries.append(entry)
    for number, tokens in enumerate(token_lists):
        arrays |= {f"tokens{number}.{name}": array for name, array in _encode_tokens(tokens).items()}
    document = {"format": FORMAT, "version": VERSION, "num_token_lists": len(token_lists), "maps": entries}
    index = json.dumps(document).encode()
    if len(index) > _MAX_INDEX_BYTES:
        raise ValueError(
            f"The index of the maps must have at most {_MAX_INDEX_BYTES} bytes. Received: {len(index)} bytes. Save fewer "
            "maps in one file."
        )
    arrays = {"index": np.frombuffer(index, np.uint8), **arrays}
    with _files.atomic_write(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
        for name, array in arrays.items():
            with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as stream:
                np.lib.format.write_array(stream, np.ascontiguousarray(array), version=(1, 0), allow_pickle=False)


def load(path: str | os.PathLike[str]) -> list[AttentionMap]:
    """Read the maps of a file.

    Raises:
        ArtifactError: the file is damaged, or no file of attention maps.
        OSError: there is no such file, or it cannot be read.
    """
    try:
        with open(path, "rb") as stream:
            return _decode_maps(_read_arrays(stream))
    except OSError:
        raise
    except ArtifactError as error:
        raise ArtifactError(f"{os.fspath(path)}: {error}") from None
    except Exception as error:
        # A hostile file may raise anything in zipfile, in json or in the checks of the maps.
        raise ArtifactError(
            f"{os.fspath(path)}: not a file of attention maps ({type(error).__name__}: {error})"
        ) from None


def storable(array: np.ndarray) -> np.ndarray:
    """Convert an array to one of the dtypes that a file may hold."""
    if array.dtype.kind in "iu" and array.dtype != np.uint8:
        return array.astype("<i8")
    return array if array.dtype.str in _DTYPES else array.astype("<f4")


def _read_arrays(stream: Any) -> dict[str, np.ndarray]:
    """Read all arrays of a file, each only after its declared size was found equal to its stored size."""
    size = stream.seek(0, os.SEEK_END)
    directory_bytes = _files.zip_directory_bytes(stream)
    if directory_bytes is None:
        raise ArtifactError("not a file of attention maps (no list of members)")
    if directory_bytes > _MAX_DIRECTORY_BYTES:
        raise ArtifactError(f"the list of its members is larger than {_MAX_DIRECTORY_BYTES} bytes")
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
        return {member.filename[:-4]: _read_array(archive, member) for member in members}


def _read_array(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> np.ndarray:
    with archive.open(member) as stream:
        start = stream.read(10)
        if start[:8] != b"\x93NUMPY\x01\x00":
            raise ArtifactError(f"{member.filename!r} is not a numpy array")
        length = int.from_bytes(start[8:10], "little")
        header = _HEADER.fullmatch(stream.read(length))
        dtype = header[1].decode() if header else ""
        if header is None or dtype not in _DTYPES:
            raise ArtifactError(f"{member.filename!r} has a header or dtype that a file of maps cannot have")
        shape = tuple(int(number) for number in header[2].decode().replace(" ", "").split(",") if number)
        declared = math.prod(shape) * np.dtype(dtype).itemsize
        if declared != member.file_size - 10 - length:
            raise ArtifactError(
                f"{member.filename!r} declares {declared} bytes, stores {member.file_size - 10 - length}"
            )
        if len(shape) > 16 or (member.filename == "index.npy" and declared > _MAX_INDEX_BYTES):
            raise ArtifactError(f"{member.filename!r} is too large")
        return np.frombuffer(stream.read(), dtype).reshape(shape)


def _decode_maps(arrays: dict[str, np.ndarray]) -> list[AttentionMap]:
    index = json.load(io.BytesIO(arrays["index"].tobytes()))
    if index["format"] != FORMAT or index["version"] != VERSION:
        raise ArtifactError(f"format {index['format']!r} version {index['version']!r}; this reads {FORMAT!r} {VERSION}")
    count = _check_index(index["num_token_lists"], len(arrays))
    token_lists = [_decode_tokens(_with_prefix(arrays, f"tokens{number}.")) for number in range(count)]
    return [
        _decode_map(entry, _with_prefix(arrays, f"{number}."), token_lists)
        for number, entry in enumerate(index["maps"])
    ]


def _with_prefix(arrays: dict[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}


def _decode_map(entry: dict[str, Any], arrays: dict[str, np.ndarray], token_lists: list[Any]) -> AttentionMap:
    def fields(kind: type, arrays: dict[str, np.ndarray], numbers: Iterable[str]) -> dict[str, Any]:
        names = {field.name for field in dataclasses.fields(kind)}
        found = {name: array for name, array in arrays.items() if name in names}
        return {**found, **{name: _check_number(entry[name]) for name in numbers}}

    source = _SOURCES[entry["source"]]
    mask = StoredMask(**fields(StoredMask, _with_prefix(arrays, "mask."), ("left", "right", "offset")))
    numbers = ("scale", "softcap") if source is QKSource else ()
    tokens, query_tokens = (
        None if entry[name] is None else token_lists[_check_index(entry[name], len(token_lists))]
        for name in ("tokens", "query_tokens")
    )
    return AttentionMap(
        _check_text(entry["path"]),
        source(**fields(source, arrays, numbers), mask=mask),
        call_index=_check_index(entry["call_index"], 1 << 31),
        layer=_check_text(entry["layer"]),
        tokens=tokens,
        query_tokens=query_tokens,
    )


def _check_index(value: Any, maximum: int) -> int:
    if type(value) is not int or not 0 <= value <= maximum:
        raise ArtifactError(f"the index must hold an integer from 0 to {maximum} there. Received: {value!r:.80}")
    return value


def _check_number(value: Any) -> Any:
    if value is not None and (type(value) not in (int, float) or not abs(value) < 1 << 53):
        raise ArtifactError(f"the index must hold a number there. Received: {value!r:.80}")
    return value


def _check_text(value: Any) -> str:
    if not isinstance(value, str):
        raise ArtifactError(f"the index must hold a string there. Received: {value!r:.80}")
    return value


def _encode_tokens(examples: Sequence[Tokens]) -> dict[str, np.ndarray]:
    """Encode the tokens of several examples as arrays. Lone surrogates, which UTF-8 does not have, are kept."""
    arrays = {"counts": np.array([len(tokens) for tokens in examples], "<i8")}
    arrays |= _encode_strings("pieces", [piece for tokens in examples for piece in tokens])
    if all(tokens.offsets is not None for tokens in examples):
        offsets = [pair for tokens in examples for pair in tokens.offsets or ()]
        arrays["offsets"] = np.array(offsets, "<i8").reshape(-1, 2)
    if all(tokens.text is not None for tokens in examples):
        arrays |= _encode_strings("texts", [tokens.text or "" for tokens in examples])
    return arrays


def _decode_tokens(arrays: dict[str, np.ndarray]) -> tuple[Tokens, ...]:
    """Decode the tokens of several examples.

    Raises:
        ValueError: the arrays do not fit together.
    """
    pieces = _decode_strings(arrays["pieces"], arrays["pieces_ends"])
    offsets = arrays.get("offsets")
    texts = _decode_strings(arrays["texts"], arrays["texts_ends"]) if "texts" in arrays else None
    counts = arrays["counts"]
    if counts.ndim != 1 or (counts < 0).any() or counts.sum() != len(pieces) or (counts > len(pieces)).any():
        raise ValueError("the counts of the tokens do not fit the tokens")
    if offsets is not None and offsets.shape != (len(pieces), 2):
        raise ValueError("the offsets of the tokens do not fit the tokens")
    examples, start = [], 0
    for number, count in enumerate(counts.tolist()):
        part = slice(start, start + count)
        pairs = None if offsets is None else tuple(map(tuple, offsets[part].tolist()))
        examples.append(Tokens(tuple(pieces[part]), pairs, None if texts is None else texts[number]))
        start += count
    return tuple(examples)


def _encode_strings(name: str, strings: list[str]) -> dict[str, np.ndarray]:
    encoded = [string.encode("utf-8", "surrogatepass") for string in strings]
    ends = np.cumsum([len(string) for string in encoded], dtype="<i8") if encoded else np.zeros(0, "<i8")
    return {name: np.frombuffer(b"".join(encoded), np.uint8), f"{name}_ends": ends}


def _decode_strings(encoded: np.ndarray, ends: np.ndarray) -> list[str]:
    content = encoded.tobytes()
    borders = [0, *ends.tolist()]
    if encoded.dtype != np.uint8 or ends.ndim != 1 or any(a > b for a, b in itertools.pairwise(borders)):
        raise ValueError("the ends of the strings do not ascend")
    if borders[-1] != len(content):
        raise ValueError("the ends of the strings do not fit their bytes")
    return [content[a:b].decode("utf-8", "surrogatepass") for a, b in itertools.pairwise(borders)]
