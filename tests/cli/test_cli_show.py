"""`limelight show`: the page of any .keras file, what was found and what not, and errors of one line."""

import io
import json
import re
import struct
import zipfile
import zlib

import keras
import numpy as np
import pytest

from limelight import models
from limelight.cli import main

pytestmark = pytest.mark.full

FAST = {"epochs": 1, "batch_size": 8, "random_state": 1, "verbose": False, "training": {"epoch_steps": 1}}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("show")
    ids = keras.Input((None,), dtype="int32", name="ids")
    hidden = keras.layers.Embedding(30, 8)(ids)
    hidden = keras.layers.MultiHeadAttention(3, 4, name="mixing")(hidden, hidden)
    pooled = keras.layers.GlobalAveragePooling1D()(hidden)
    keras.Model(ids, keras.layers.Dense(2, "softmax")(pooled), name="encoder").save(folder / "ids.keras")
    inner = keras.Sequential([keras.Input((None,), dtype="int32"), keras.layers.Embedding(4, 8)])
    hidden = inner(ids)
    keras.Model(ids, keras.layers.MultiHeadAttention(1, 4)(hidden, hidden)).save(folder / "nested.keras")
    hidden = inner(inner.inputs[0])
    keras.Model(inner.inputs, keras.layers.MultiHeadAttention(1, 4)(hidden, hidden)).save(folder / "own.keras")
    three = keras.layers.Reshape((3, 8))(keras.layers.Embedding(30, 8)(ids))
    keras.Model(ids, keras.layers.MultiHeadAttention(1, 4)(three, three)).save(folder / "three.keras")
    source, target = (keras.Input((None, 5), name=name) for name in ("source", "target"))
    crossed = keras.layers.MultiHeadAttention(2, 4, name="cross")(target, source)
    keras.Model([source, target], crossed).save(folder / "cross.keras")
    image = keras.Input((4, 6, 3))
    patches = keras.layers.Reshape((24, 3))(image)
    keras.Model(image, keras.layers.Attention(name="patches")([patches, patches])).save(folder / "image.keras")
    keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)], name="plain").save(folder / "dense.keras")
    keras.Sequential([keras.Input((4,)), keras.layers.Lambda(lambda x: x + 1)]).save(folder / "code.keras")
    texts = ["a good film", "a bad film", "good", "bad"] * 6
    models.TextClassifier(encoder=None, **FAST).fit(texts, ["pos", "neg"] * 12).save(folder / "text.keras")
    series = np.arange(48.0).reshape(24, 2) % 5
    models.SeriesClassifier(encoder="conv", units=3, **FAST).fit(series, [0, 1] * 12).save(folder / "series.keras")
    random = np.random.default_rng(7)
    np.save(folder / "ids.npy", random.integers(1, 30, (11, 7)))
    np.save(folder / "one.npy", np.arange(1.0, 6.0))
    np.save(folder / "empty.npy", np.zeros((0, 7), int))
    (folder / "bad.png").write_bytes(b"nope")
    np.save(folder / "big.npy", np.array([[3, 30, -1]]))
    (folder / "six.json").write_text(json.dumps(["a"] * 6))
    np.save(folder / "halves.npy", np.full((2, 3), 0.5))
    np.save(folder / "four.npy", np.ones((2, 4)))
    np.save(folder / "series.npy", series[:3])
    np.save(folder / "objects.npy", np.array([{}], dtype=object))
    arrays = {"target": random.normal(size=(2, 3, 5)), "source": random.normal(size=(2, 7, 5))}
    np.savez(folder / "cross.npz", **arrays)  # pyright: ignore[reportArgumentType]
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
    arrays["source"][1, 3, 2], arrays["source"][1, 4, 0] = np.nan, np.inf
    np.save(folder / "nan.npy", arrays["source"])
    (folder / "words.txt").write_text("\n".join(" ".join(f"w{j}" for j in range(7)) for _ in range(11)))
    keras.utils.save_img(folder / "photo.png", random.integers(0, 255, (9, 8, 3)))
    for name, shape in {"gray": (5, 7, 1), "clear": (4, 6, 4), "exact": (4, 6, 3)}.items():
        keras.utils.save_img(folder / f"{name}.png", random.integers(0, 255, shape))
    (folder / "damaged.keras").write_bytes((folder / "ids.keras").read_bytes()[:-100])
    return folder


@pytest.fixture
def show(folder, monkeypatch, capsys, tmp_path):
    """Run the command in the folder; return its exit code, its lines on stdout and stderr, and the data of the page."""
    monkeypatch.chdir(folder)

    def run(*arguments):
        path = tmp_path / "page.html"
        code = main(["show", *arguments, "--out", str(path)])
        out, err = capsys.readouterr()
        data = None
        if path.exists():
            block = re.search('<script type="application/json" id="data">(.*?)</script>', path.read_text(), re.DOTALL)
            assert block
            data = json.loads(block[1])
        return code, out.splitlines(), err, data

    return run


def test_array_of_ids_with_words(show, folder):
    code, lines, err, data = show("ids.keras", "ids.npy", "--tokens", "words.txt", "--examples", "2")
    assert (code, err) == (0, "")
    assert lines[0] == "Model: ids.keras, Functional 'encoder', 686 parameters"
    assert lines[1:4] == [
        "Input: ids.npy: the first 2 of 11, of 7, int32",
        "Found: 1 attention map",
        "  mixing  MultiHeadAttention, 3 heads, 7 × 7",
    ]
    assert lines[4].startswith("Page: ")
    assert len(lines) == 5
    assert "w6" in json.dumps(data)


@pytest.mark.parametrize(
    ("arguments", "lines"),
    [
        (["cross.keras", "cross.npz"], ["  cross  MultiHeadAttention, 2 heads, 3 × 7"]),
        (["cross.keras", "source.npy", "target.npy"], ["  cross  MultiHeadAttention, 2 heads, 3 × 7"]),
        (
            ["image.keras", "photo.png"],
            ["Input: photo.png: 1 of 4 × 6 × 3, float32, resized from 9 × 8", "  patches  Attention, 1 head, 24 × 24"],
        ),
        (
            ["image.keras", "gray.png"],
            ["Input: gray.png: 1 of 4 × 6 × 3, float32, resized from 5 × 7, converted from grayscale to color"],
        ),
        (
            ["image.keras", "clear.png"],
            ["Input: clear.png: 1 of 4 × 6 × 3, float32, converted from color with transparency to color"],
        ),
        (["image.keras", "exact.png"], ["Input: exact.png: 1 of 4 × 6 × 3, float32"]),
        (["ids.keras", "one.npy"], ["Input: one.npy: 1 of 5, int32", "  mixing  MultiHeadAttention, 3 heads, 5 × 5"]),
        (["text.keras", "a good film"], ["Input: a good film, 1 text", "Found: 1 attention map"]),
        (["series.keras", "series.npy"], ["Input: series.npy, 3 series", "Found: 1 attention map"]),
    ],
)
def test_other_models_and_inputs(show, arguments, lines):
    code, out, _, data = show(*arguments)
    assert code == 0
    assert set(lines) <= set(out), out
    assert data is not None


def test_a_text_that_is_not_read_whole_is_said_once(show):
    code, lines, err, _ = show("text.keras", "good film " * 300)
    assert (code, err) == (0, "")
    assert sum("1 of 1 texts is longer than the model reads: its end is left out" in line for line in lines) == 1


def test_words_from_right_to_left_leave_the_line_in_order(show, tmp_path):
    code, out, _, _ = show("text.keras", "שלום film")
    assert code == 0
    assert "Input: שלום film, 1 text" in out
    assert "<dt>Input</dt><dd>\u2068שלום film\u2069, 1 text</dd>" in (tmp_path / "page.html").read_text()


def test_what_is_not_shown_may_hold_anything(show):
    code, _, err, _ = show("cross.keras", "nan.npy", "target.npy", "--examples", "1")
    assert (code, err) == (0, "")


def test_model_without_attention_says_why(show):
    code, out, err, data = show("dense.keras", "four.npy")
    assert (code, data) == (3, None)
    assert [line for line in out if line.startswith("Not found: No attention was seen in 'plain' (Sequential)")]
    assert err == "limelight: No attention was captured, so there is nothing to show in dense.keras.\n"


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["missing.keras", "x"], 3, "'missing.keras' must be a .keras file. No such file"),
        (["damaged.keras", "ids.npy"], 3, "'damaged.keras' must be a .keras file. It is damaged"),
        (["words.txt", "ids.npy"], 3, "'words.txt' must be a .keras file"),
        (["code.keras", "four.npy"], 3, "The file holds Python code, which is not run"),
        (["ids.keras", "a good film"], 3, "The model takes numbers, and its file holds no vocabulary. It takes ids (batch, any)"),
        (["ids.keras", "gone.npy"], 3, "'gone.npy' must be a .npy file that can be read. No such file"),
        (["ids.keras", "objects.npy"], 3, "'objects.npy' must be a .npy file that can be read"),
        (["ids.keras", "halves.npy"], 3, "must hold whole numbers for input 'ids' of int32. Received: float64"),
        (["cross.keras", "nan.npy", "target.npy"], 3, "nan.npy must hold finite numbers. Received: NaN or infinity in 2 of 70"),
        (["cross.keras", "nan.npy", "target.npy"], 3, "of 70 numbers, the first at (1, 3, 2). Fill them, or leave out these"),
        (["cross.keras", "source.npy"], 3, "The model takes 2 inputs: source (batch, any, 5), target (batch, any, 5)"),
        (["cross.keras", "ids.npy", "ids.npy"], 3, "must have shape (batch, any, 5). Received: (11, 7)"),
        (["ids.keras", "empty.npy"], 3, "empty.npy must have at least one example, and one position. Received: shape (0, 7)."),
        (["image.keras", "bad.png"], 3, "limelight: 'bad.png' must be an image that Pillow can read. It is none, or of a format"),
        (["ids.keras", "photo.png"], 3, "An image needs a model with an input (batch, height, width, channels)"),
        (["text.keras", "a", "b"], 2, "A TextClassifier takes one INPUT. Received: 2"),
        (["ids.keras", "ids.npy", "--layout", "xyz"], 2, "limelight: --layout must have one letter for each axis of the weights"),
        (["ids.keras", "ids.npy", "--layout", "xyz"], 2, "any other letter is a further batch axis. Received: xyz.\n"),
        (["ids.keras", "one.npy", "--tokens", "words.txt"], 3, "'words.txt' must have one line or list of tokens for each"),
        (["ids.keras", "one.npy", "--tokens", "words.txt"], 3, "Received: 8 for 1 example.\n"),
        (["ids.keras", "one.npy", "--tokens", "six.json"], 3, "'six.json' must have at most 5 tokens for an example"),
        (["ids.keras", "one.npy", "--tokens", "six.json"], 3, "position. Received: 6 for example 1.\n"),
        (["ids.keras", "big.npy"], 3, "The ids of input 'ids' must be from 0 to 29, for the 30 rows of layer 'embedding"),
        (["ids.keras", "big.npy"], 3, "Received: ids from -1 to 30. Make them with the vocabulary of the model.\n"),
        (["nested.keras", "ids.npy"], 3, "The ids of input 'ids' must be from 0 to 3, for the 4 rows of layer 'embedding"),
        (["own.keras", "ids.npy"], 3, "must be from 0 to 3, for the 4 rows of layer 'embedding"),
        (["text.keras", "a", "--layout", "btns"], 2, "--layout is for models of other libraries: the axes of an estimator are"),
        (["text.keras", "a", "--layout", "xyz"], 2, "--layout is for models of other libraries: the axes of an estimator are"),
        (["ids.keras", "ids.npy", "--examples", "0"], 2, "--examples must be at least 1"),
        (["ids.keras", "ids.npy", "--import", "no_such_package"], 2, "--import no_such_package failed: ModuleNotFoundError"),
        (["ids.keras", "ids.npy", "--tokens", "gone.txt"], 3, "gone.txt: No such file"),
    ],
)  # fmt: skip
def test_errors_are_one_line(show, arguments, code, message):
    got, _, err, data = show(*arguments)
    assert (got, data) == (code, None)
    assert err.startswith("limelight: ")
    assert err.count("\n") == 1
    assert message in err


def test_errors_of_layers_have_their_reason(show):
    code, _, err, _ = show("three.keras", "ids.npy")
    assert (code, err.count("\n")) == (3, 1)
    assert err.startswith("limelight: 'three.keras' cannot run on this input. ")
    # The reason itself is the backend's.
    assert err.endswith("(in Reshape.call())\n")


def test_hostile_files_are_refused_without_a_traceback(show, folder):
    whole = (folder / "ids.keras").read_bytes()
    random = np.random.default_rng(5)
    for _ in range(12):
        mutant = bytearray(whole)
        for place in random.integers(0, len(whole), 40):
            mutant[place] ^= int(random.integers(1, 255))
        (folder / "mutant.keras").write_bytes(mutant)
        code, _, err, _ = show("mutant.keras", "ids.npy")
        assert code in (0, 3)
        assert "Traceback" not in err
    with zipfile.ZipFile(io.BytesIO(whole)) as archive, zipfile.ZipFile(folder / "mutant.keras", "w") as other:
        for name in archive.namelist():
            content = archive.read(name)
            if name == "config.json":
                content = content.replace(b'"keras.src.models.functional"', b'"os"').replace(
                    b'"Functional"', b'"system"'
                )
            other.writestr(name, content)
    code, _, err, _ = show("mutant.keras", "ids.npy")
    assert (code, err.count("\n")) == (3, 1)


def make_png(width, height):
    """Return a PNG that declares a size and has no pixels."""

    def chunk(kind, content):
        return struct.pack(">L", len(content)) + kind + content + struct.pack(">L", zlib.crc32(kind + content))

    header = struct.pack(">LLBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def test_hostile_inputs_are_refused_without_a_traceback(show, folder):
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (1099511627776,), }"
    array = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header) + 1) + header + b"\n"
    (folder / "bomb.npy").write_bytes(array)
    with zipfile.ZipFile(folder / "pickled.npz", "w") as archive:
        archive.writestr("ids.npy", b"\x80\x04K\x01.")
    with zipfile.ZipFile(folder / "bomb.npz", "w") as archive:
        archive.writestr("ids.npy", array)
    content = bytearray((folder / "bomb.npz").read_bytes())
    # The list of members declares almost 4 GiB.
    start = content.index(b"PK\x01\x02")
    content[start + 24 : start + 28] = b"\xff\xff\xff\xfe"
    (folder / "declared.npz").write_bytes(content)
    (folder / "text.npz").write_bytes(b"no archive")
    (folder / "wide.png").write_bytes(make_png(100_000, 100_000))
    (folder / "broken.png").write_bytes(make_png(4, 4))
    for model, name in [
        ("ids.keras", "bomb.npy"),
        ("ids.keras", "pickled.npz"),
        ("ids.keras", "bomb.npz"),
        ("ids.keras", "declared.npz"),
        ("ids.keras", "text.npz"),
        ("image.keras", "wide.png"),
        ("image.keras", "broken.png"),
    ]:
        code, _, err, data = show(model, name)
        assert (code, data, err.count("\n")) == (3, None, 1), err
        assert name in err


def test_page_opens_where_a_window_can(folder, monkeypatch, capsys):
    opened = []
    monkeypatch.chdir(folder)
    monkeypatch.setattr("webbrowser.open", opened.append)
    monkeypatch.setenv("DISPLAY", ":0")
    assert main(["show", "text.keras", "good"]) == 0
    path = capsys.readouterr().out.splitlines()[-1].removeprefix("Page: ")
    assert opened == [f"file://{path}"]
