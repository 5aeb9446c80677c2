"""Hostile .keras files: each is made here, refused with a reason on one line, and runs no code."""

import contextlib
import io
import json
import stat
import struct
import zipfile

import h5py
import keras
import numpy as np
import pytest

import limelight as ll
from limelight.exceptions import DataError
from limelight.models.files import holds_estimator
from limelight.models.keras_files import CONFIG, WEIGHTS, check_keras_file, load_keras_model

pytestmark = pytest.mark.full


@pytest.fixture(scope="module")
def members(tmp_path_factory):
    """The files in a small model of Keras's."""
    path = tmp_path_factory.mktemp("whole") / "model.keras"
    inputs = keras.Input((5, 4), name="tokens")
    hidden = keras.layers.MultiHeadAttention(2, 3, name="mixing")(inputs, inputs)
    keras.Model(inputs, keras.layers.Dense(2)(keras.layers.Dropout(0.1)(hidden))).save(path)
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


@pytest.fixture
def write(members, tmp_path):
    """Write a .keras file with some members replaced or added; None leaves one out. Return its path."""

    def write_file(changes=None, edit=None, **options):
        path = tmp_path / "model.keras"
        with zipfile.ZipFile(path, "w", **options) as archive:
            for name, content in {**members, **(changes or {})}.items():
                if content is not None:
                    archive.writestr(name, content)
            if edit is not None:
                edit(archive)
        return path

    return write_file


def change_config(members, change):
    """Return the configuration after `change` was called with the entries of its layers by class name."""
    config = json.loads(members[CONFIG])
    change({layer["class_name"]: layer for layer in config["config"]["layers"]})
    return {CONFIG: json.dumps(config)}


def change_weights(members, change):
    """Return the file of weights after `change` was called with it."""
    stream = io.BytesIO(members[WEIGHTS])
    with h5py.File(stream, "r+") as file:
        change(file)
    return {WEIGHTS: stream.getvalue()}


def refused(path, reason):
    """Check that a file is refused with a reason, on one line."""
    with pytest.raises(DataError, match=reason) as error:
        load_keras_model(path)
    assert str(error.value).startswith(f"{str(path)!r} must be a .keras file")
    assert "\n" not in str(error.value)


def test_whole_file_loads_with_its_weights(write, members):
    path = write()
    model = load_keras_model(path)
    expected = keras.models.load_model(path, compile=False)
    x = np.ones((1, 5, 4), "float32")
    np.testing.assert_array_equal(model.predict(x, verbose=0), expected.predict(x, verbose=0))
    # Kernels and biases of queries, keys, values (4 x 6) and output (6 x 4), and of a dense layer.
    assert check_keras_file(path) == 4 * (3 * (24 + 6) + 24 + 4 + 10)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("../outside.txt", "holds '../outside.txt', which is no file of a Keras model"),
        ("assets/../../outside.txt", "no file of a Keras model"),
        ("/tmp/outside.txt", "no file of a Keras model"),
        ("assets\\..\\outside.txt", "no file of a Keras model"),
        ("assets/C:/outside.txt", "no file of a Keras model"),
        ("model.weights.npz", "no file of a Keras model"),
        ("__init__.py", "no file of a Keras model"),
    ],
)
def test_members_outside_the_model(write, name, reason):
    refused(write({name: b"x"}), reason)


def test_links_duplicates_and_encryption(write):
    def link(archive):
        info = zipfile.ZipInfo("assets/link")
        info.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(info, "/etc/passwd")

    def duplicate(archive):
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr(CONFIG, "{}")

    refused(write(edit=link), "holds 'assets/link', which is no file of a Keras model")
    refused(write(edit=duplicate), "Two of its members have the same name")
    content = bytearray(write().read_bytes())
    # The flag of encryption of the first member in the list of members.
    content[content.index(b"PK\x01\x02") + 8] |= 1
    path = write()
    path.write_bytes(content)
    refused(path, "is encrypted")


def test_zip_bombs(write, members):
    refused(write({"assets/zeros": bytes(1 << 22)}, compression=zipfile.ZIP_DEFLATED), "is compressed")
    # Members that share their bytes: the list names one of them many times.
    path = write({"assets/a0": bytes(100_000)})
    content = path.read_bytes()
    start = content.index(b"PK\x01\x02")
    end = content.rindex(b"PK\x05\x06")
    entry = content[content.index(b"PK\x01\x02", content.index(b"assets/a0", start) - 46) : end]
    copies = b"".join(entry.replace(b"assets/a0", b"assets/a%d" % index) for index in range(1, 9))
    counts = [8 + len(members) + 1] * 2
    record = struct.pack("<4sHHHHLLH", b"PK\x05\x06", 0, 0, *counts, end - start + len(copies), start, 0)
    path.write_bytes(content[:end] + copies + record)
    refused(path, "Its members declare more bytes than the file has")
    # A list of a million members would be a million objects.
    path.write_bytes(bytes(20 << 20) + struct.pack("<4sHHHHLLH", b"PK\x05\x06", 0, 0, 9, 9, 20 << 20, 0, 0))
    refused(path, "The list of its members is too long")
    with pytest.raises(DataError):
        holds_estimator(path)


def test_missing_and_truncated_files(write, members, tmp_path):
    refused(tmp_path / "gone.keras", "No such file")
    refused(write({CONFIG: None}), r"It has no config\.json")
    refused(write({WEIGHTS: None}), r"It has no model\.weights\.h5")
    refused(write({WEIGHTS: members[WEIGHTS][:3000]}), "It is damaged")
    refused(write({CONFIG: members[CONFIG][:100]}), "It is damaged")
    refused(write({CONFIG: b"\xff\xfe"}), "It is damaged")
    whole = write().read_bytes()
    path = tmp_path / "model.keras"
    for size in (0, 10, len(whole) // 2, len(whole) - 30):
        path.write_bytes(whole[:size])
        refused(path, "It is damaged")
    # A flipped bit of a weight: the checksum of the archive finds it.
    flipped = bytearray(whole)
    flipped[whole.index(members[WEIGHTS]) + len(members[WEIGHTS]) - 1] ^= 1
    path.write_bytes(flipped)
    refused(path, "It is damaged")


def test_code_in_the_configuration_is_not_run(write, members, tmp_path):
    path = tmp_path / "model.keras"
    keras.Sequential([keras.Input((4,)), keras.layers.Lambda(lambda x: x + 1)]).save(path)
    refused(path, "The file holds Python code, which is not run")

    def marshalled(layers):
        layers["Dense"].update(
            class_name="Lambda", config={"function": ["code", None, None], "function_type": "lambda"}
        )

    refused(write(change_config(members, marshalled)), "The file holds Python code, which is not run")
    for name in ("TFSMLayer", "TorchModuleWrapper"):

        def wrapped(layers, name=name):
            layers["Dense"].update(class_name=name, config={"filepath": "/tmp", "module": "gASV"})

        refused(write(change_config(members, wrapped)), f"holds a {name}, which runs a module of another library")


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        (
            {"module": "os", "class_name": "system", "registered_name": None},
            r"names os\.system, which is not registered",
        ),
        (
            {"module": "builtins", "class_name": "function", "config": "eval", "registered_name": "eval"},
            "Keras cannot load",
        ),
        ({"module": "keras.utils", "class_name": "get_file"}, "Keras cannot load it"),
        ({"module": "keras.src.saving.saving_lib", "class_name": "load_model"}, "Keras cannot load it"),
        (
            {"module": "mine.layers", "class_name": "Mine", "registered_name": "mine>Mine"},
            r"mine\.layers\.Mine, .*--import",
        ),
    ],
)
def test_names_outside_keras(write, members, entry, reason):
    refused(write(change_config(members, lambda layers: layers["Dense"].update(entry))), reason)


def test_registered_layers_load(write, tmp_path):
    @keras.saving.register_keras_serializable("tests_of_keras_files")
    class Doubled(keras.layers.Layer):
        def call(self, inputs):
            return 2 * inputs

    class Halved(keras.layers.Layer):
        def call(self, inputs):
            return inputs / 2

    path = tmp_path / "model.keras"
    keras.Sequential([keras.Input((4,)), Doubled(), Halved()]).save(path)
    refused(path, r"Halved, which is not registered")
    model = load_keras_model(path, custom_objects={"Halved": Halved})
    np.testing.assert_allclose(model.predict(np.ones((1, 4), "float32"), verbose=0), 1)


def test_shapes_that_the_file_does_not_store(write, members):
    def huge(layers):
        layers["Dense"]["config"]["units"] = 1 << 40

    def repeated(layers):
        layers["Dropout"].update(class_name="Reshape", config={"name": "dropout", "target_shape": [5, 4]})
        layers["Dense"].update(class_name="ZeroPadding1D", config={"name": "dense", "padding": [0, 1 << 30]})

    refused(write(change_config(members, huge)), "declares more weights than the 512 bytes that it stores")
    refused(write(change_config(members, repeated)), "One of its layers returns 4,294,967,316 numbers for each example")
    refused(write({CONFIG: b"[" * 100_000}), "It is damaged")
    refused(write({CONFIG: b" " * (16 << 20) + members[CONFIG]}), "configuration is larger than 16 MiB")


def add_external(file):
    file.create_dataset("outside", (4,), "f4", external=[("/etc/passwd", 0, 16)])


def add_virtual(file):
    layout = h5py.VirtualLayout((4,), "f4")
    layout[:] = h5py.VirtualSource("/tmp/other.h5", "x", (4,))
    file.create_virtual_dataset("virtual", layout)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda file: file.__setitem__("link", h5py.ExternalLink("/tmp/other.h5", "/x")), "hold the link 'link'"),
        (lambda file: file.__setitem__("link", h5py.SoftLink("/layers")), "hold the link 'link'"),
        (lambda file: file["layers"].__setitem__("again", file["/"]), "A group of its weights stands in two places"),
        (add_external, "'/outside' lie in another file"),
        (add_virtual, "'/virtual' lie in another file"),
        (lambda file: file.create_dataset("bomb", (1 << 40,), "f4", chunks=(1 << 20,)), "'/bomb' are compressed"),
        (
            lambda file: file.create_dataset("empty", (1 << 40,), "f4"),
            "declare 4,398,046,511,104 bytes, and 0 are stored",
        ),
        (lambda file: file.create_dataset("zip", data=np.zeros(9000), compression="gzip"), "'/zip' are compressed"),
        (lambda file: file.create_dataset("text", data="words"), "'/text' are compressed, or are not numbers"),
        (lambda file: file.__setitem__("type", np.dtype("f4")), "'/type', which is no array"),
    ],
)
def test_hostile_weights(write, members, change, reason):
    refused(write(change_weights(members, change)), reason)


def test_estimators_are_checked_too(tmp_path):
    settings = {"epochs": 1, "training": {"epoch_steps": 1}, "random_state": 0, "verbose": False}
    path = tmp_path / "model.keras"
    ll.models.TextClassifier(encoder=None, **settings).fit(["good", "bad"] * 10, [1, 0] * 10).save(path)
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    description = json.loads(members["assets/limelight/estimator.json"])

    def rewrite(name, content):
        with zipfile.ZipFile(path, "w") as archive:
            for other, stored in {**members, name: content}.items():
                archive.writestr(other, stored)

    rewrite(WEIGHTS, change_weights(members, add_external)[WEIGHTS])
    with pytest.raises(DataError, match="lie in another file"):
        ll.models.load(path)
    description["params"]["encoder"] = {"keras": {"module": "os", "class_name": "system", "config": {}}}
    rewrite("assets/limelight/estimator.json", json.dumps(description))
    with pytest.raises(DataError, match=r"names os\.system"):
        ll.models.load(path)
    rewrite("assets/limelight/estimator.json", b"[" * 100_000)
    with pytest.raises(DataError, match="It is damaged"):
        ll.models.load(path)


def test_random_damage_never_leaks_another_error(write):
    whole, random = write().read_bytes(), np.random.default_rng(3)
    path = write()
    for _ in range(60):
        damaged = bytearray(whole)
        for place in random.integers(0, len(whole), 8):
            damaged[place] ^= int(random.integers(1, 255))
        path.write_bytes(damaged)
        with contextlib.suppress(DataError):
            load_keras_model(path)
