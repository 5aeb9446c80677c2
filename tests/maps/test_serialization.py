"""Files of maps: a round trip restores them, and anything else raises one kind of error."""

import io
import json
import os
import struct
import tracemalloc
import zipfile

import numpy as np
import pytest

from limelight.maps import ArtifactError, AttentionMap, AttentionMaps, QKSource, StoredMask, Tokens, WeightSource

pytestmark = pytest.mark.backend_free


@pytest.fixture
def maps(random):
    query, key = random.normal(size=(2, 4, 5, 3)).astype("float32"), random.normal(size=(2, 2, 7, 3)).astype("float16")
    mask = StoredMask(
        random.random((2, 7)) > 0.2, None, random.random((1, 1, 5, 7)) > 0.2, left=4, right=None, offset=2
    )
    tokens = (Tokens(("ü", "\ud800", "</script>"), ((0, 1), (1, 2), (2, 11)), "ü\ud800</script>"), Tokens((), (), ""))
    dot_product = QKSource(
        query, key, 0.25, softcap=30.0, bias=random.normal(size=(1, 4, 5, 7)).astype("float32"), mask=mask
    )
    additive = QKSource(query, query, vector=np.arange(3.0, dtype="float32"))
    return AttentionMaps(
        [
            AttentionMap("encoder/a", dot_product, layer="Theirs", tokens=tokens),
            AttentionMap("encoder/a", additive, call_index=1, query_tokens=(("x",), ("y", "z"))),
            AttentionMap("kept", WeightSource(random.random((2, 3, 1, 5, 5)).astype("float32")), tokens=tokens),
        ]
    )


@pytest.fixture
def file(maps, tmp_path):
    maps.save(tmp_path / "maps.npz")
    return tmp_path / "maps.npz"


def test_round_trip_restores_maps(maps, file):
    loaded = AttentionMaps.load(file)
    assert list(loaded) == ["encoder/a", "encoder/a#1", "kept"]
    for key, one in maps.items():
        again = loaded[key]
        assert (again.path, again.call_index, again.layer) == (one.path, one.call_index, one.layer)
        assert (again.tokens, again.query_tokens) == (one.tokens, one.query_tokens)
        assert type(again.source) is type(one.source)
        np.testing.assert_array_equal(again.weights(), one.weights())
    assert loaded["encoder/a"].source.key.dtype == np.float16
    assert loaded["encoder/a"].source.mask.left == 4


def test_equal_maps_are_saved_as_equal_bytes(maps, file, tmp_path):
    AttentionMaps.load(file).save(tmp_path / "again.npz")
    assert (tmp_path / "again.npz").read_bytes() == file.read_bytes()


def test_numpy_reads_the_file(file):
    with np.load(file, allow_pickle=False) as content:
        assert content["0.query"].shape == (2, 4, 5, 3)


def test_a_failed_write_keeps_the_old_file(maps, file, monkeypatch):
    before = file.read_bytes()

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np.lib.format, "write_array", full)
    with pytest.raises(OSError, match="No space left"):
        maps.save(file)
    assert file.read_bytes() == before
    assert os.listdir(file.parent) == ["maps.npz"]


def test_a_missing_file_raises_os_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        AttentionMaps.load(tmp_path / "none.npz")


def test_damaged_files_raise_artifact_error(file):
    """Truncate files, flip bits, overwrite stretches: a file either loads unchanged maps or raises `ArtifactError`."""
    random, content = np.random.default_rng(11), file.read_bytes()
    whole = {key: one.weights() for key, one in AttentionMaps.load(file).items()}
    outcomes = {"rejected": 0, "harmless": 0}
    for number in range(600):
        damaged = bytearray(content)
        if number % 3 == 0:
            del damaged[random.integers(len(damaged)) :]
        elif number % 3 == 1:
            for place in random.integers(len(damaged), size=random.integers(1, 8)):
                damaged[place] ^= 1 << random.integers(8)
        else:
            start = random.integers(len(damaged))
            damaged[start : start + 40] = random.bytes(len(damaged[start : start + 40]))
        file.write_bytes(damaged)
        try:
            loaded = AttentionMaps.load(file)
        except ArtifactError:
            outcomes["rejected"] += 1
            continue
        # Damage may only be harmless in bytes that the zip format does not use.
        assert list(loaded) == list(whole)
        for key, weights in whole.items():
            np.testing.assert_array_equal(loaded[key].weights(), weights)
        outcomes["harmless"] += 1
    assert outcomes["rejected"] > 500


def written(path, members, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def npy(array):
    stream = io.BytesIO()
    np.lib.format.write_array(stream, np.asarray(array), version=(1, 0), allow_pickle=True)
    return stream.getvalue()


def index(**changes):
    document = {"format": "limelight.maps", "version": 1, "num_token_lists": 0, "maps": [], **changes}
    return npy(np.frombuffer(json.dumps(document).encode(), np.uint8))


def entry(**changes):
    numbers = {"scale": 1.0, "softcap": None, "left": None, "right": None, "offset": 0}
    named = {"path": "a", "call_index": 0, "layer": "", "source": "qk", "tokens": None, "query_tokens": None}
    return {**named, **numbers, **changes}


def header(shape, dtype="<f4", count=0):
    """A numpy file that declares more than it stores."""
    text = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}".encode()
    text += b" " * (63 - len(text) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + b"\0" * count


VALID = {"0.query.npy": npy(np.ones((1, 1, 2, 3), "f4")), "0.key.npy": npy(np.ones((1, 1, 2, 3), "f4"))}
HOSTILE = {
    "no zip": (b"hello", "no list of members"),
    "empty": (b"", "no list of members"),
    "no index": ({"a.npy": npy([1.0])}, "KeyError"),
    "a pickle": ({"index.npy": npy(np.array([os.getcwd], dtype=object))}, "header or dtype"),
    "a script": ({"index.npy": b"import os"}, "is not a numpy array"),
    "a path": ({"../index.npy": index()}, r"unexpected member '\.\./index\.npy'"),
    "an array larger than its bytes": (
        {"index.npy": index(), "0.query.npy": header((1 << 40, 4), count=16)},
        "declares",
    ),
    "sizes that overflow": (
        {"index.npy": index(), "0.query.npy": header((1 << 40, 1 << 40, 1 << 40), count=16)},
        "declares",
    ),
    "another format": ({"index.npy": index(format="other")}, "format 'other' version 1"),
    "another version": ({"index.npy": index(version=9)}, "version 9"),
    "deep json": ({"index.npy": npy(np.frombuffer(b"[" * 200_000, np.uint8))}, "RecursionError"),
    "an unknown source": ({"index.npy": index(maps=[entry(source="os.system")]), **VALID}, "KeyError"),
    "a scale that is text": (
        {"index.npy": index(maps=[entry(scale="1e9")]), **VALID},
        "must hold a number",
    ),
    "a huge window": (
        {"index.npy": index(maps=[entry(right=10**300)]), **VALID},
        "must hold a number",
    ),
    "a path that is no string": ({"index.npy": index(maps=[entry(path=[])]), **VALID}, "must hold a string"),
    "tokens that do not exist": ({"index.npy": index(maps=[entry(tokens=5)]), **VALID}, "must hold an integer"),
    "keys of another size": (
        {"index.npy": index(maps=[entry()]), **VALID, "0.key.npy": npy(np.ones((1, 1, 2, 4), "f4"))},
        r"`query` must be \(B, N, T, H\)",
    ),
    "no heads": (
        {"index.npy": index(maps=[entry()]), **{name: npy(np.ones((1, 0, 2, 3), "f4")) for name in VALID}},
        "must divide",
    ),
    "too many lists of tokens": ({"index.npy": index(num_token_lists=10**12)}, "must hold an integer"),
    "tokens that do not fit": (
        {
            "index.npy": index(num_token_lists=1),
            "tokens0.pieces.npy": npy(np.zeros(4, np.uint8)),
            "tokens0.pieces_ends.npy": npy(np.array([2, 1 << 60])),
            "tokens0.counts.npy": npy(np.array([2])),
        },
        "do not fit their bytes",
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_raises_artifact_error(name, tmp_path):
    content, message = HOSTILE[name]
    path = tmp_path / "maps.npz"
    path.write_bytes(content) if isinstance(content, bytes) else written(path, content)
    with pytest.raises(ArtifactError, match=message):
        AttentionMaps.load(path)


def test_a_zip_bomb_is_not_decompressed(tmp_path):
    """64 MB of zeros compressed to 64 KB."""
    path = tmp_path / "bomb.npz"
    written(path, {"index.npy": index(), "0.query.npy": b"\0" * (64 << 20)}, zipfile.ZIP_DEFLATED)
    tracemalloc.start()
    with pytest.raises(ArtifactError, match="is compressed"):
        AttentionMaps.load(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4 << 20


def test_a_long_list_of_members_is_rejected(tmp_path, monkeypatch):
    path = tmp_path / "many.npz"
    written(path, {"index.npy": index()})
    content = bytearray(path.read_bytes())
    end = content.rfind(b"PK\x05\x06")
    content[end + 12 : end + 16] = struct.pack("<L", 1 << 30)
    path.write_bytes(content)
    with pytest.raises(ArtifactError, match="the list of its members is larger"):
        AttentionMaps.load(path)


def test_overlapping_members_are_rejected(tmp_path):
    path = tmp_path / "overlap.npz"
    written(path, {"index.npy": index(), **{f"{n}.query.npy": npy(np.zeros(100)) for n in range(3)}})
    content = bytearray(path.read_bytes())
    # Every member of the list points at the longest, and declares its size.
    with zipfile.ZipFile(path) as archive:
        last = archive.infolist()[-1]
    start = content.find(b"PK\x01\x02")
    while (start := content.find(b"PK\x01\x02", start)) >= 0:
        content[start + 20 : start + 28] = struct.pack("<LL", 1 << 20, 1 << 20)
        content[start + 42 : start + 46] = struct.pack("<L", last.header_offset)
        start += 46
    path.write_bytes(content)
    with pytest.raises(ArtifactError, match="declare more bytes than the file has"):
        AttentionMaps.load(path)
