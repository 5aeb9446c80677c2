"""Settings come from flag, environment, file and default, in this order, and errors name the source."""

import dataclasses
import subprocess
import sys

import pytest

from limelight.study import Settings, UsageError, resolve_settings

pytestmark = pytest.mark.backend_free


@pytest.mark.subprocess
def test_the_namespace_needs_no_other_import():
    program = (
        "import sys; import limelight as ll; print(ll.study.run.__name__, ll.study.Settings(seeds=5).seeds, "
        "ll.study.resolve_settings({}, {}).seeds, [name for name in ('numpy', 'keras') if name in sys.modules])"
    )
    process = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (process.stdout, process.stderr) == ("run 5 3 []\n", "")


def test_defaults():
    assert resolve_settings({}, {}) == Settings()
    assert Settings().data == "movie-reviews"
    assert Settings().seeds == 3


def test_flag_before_environment_before_file_before_default(tmp_path):
    file = tmp_path / "study.toml"
    file.write_text('[study]\nseeds = 5\nbatch-size = 16\nlearning_rate = 1\ndata = "from.csv"\n')
    environment = {"LIMELIGHT_BATCH_SIZE": "32", "LIMELIGHT_UNITS": "8", "LIMELIGHT_EPOCHS": "", "LIMELIGHT_OTHER": "x"}

    settings = resolve_settings({"units": "4", "data": None, "require_accuracy": "0.75"}, environment, str(file))

    assert settings == dataclasses.replace(
        Settings(), seeds=5, batch_size=32, learning_rate=1.0, data="from.csv", units=4, require_accuracy=0.75
    )
    assert type(settings.learning_rate) is float


@pytest.mark.parametrize(
    ("flags", "environment", "message"),
    [
        ({"seeds": "many"}, {}, r"^--seeds must be a whole number\. Received: 'many'\.$"),
        ({"seeds": "0"}, {}, r"^--seeds must be at least 1\. Received: 0\.$"),
        ({"dropout": "1"}, {}, r"^--dropout must be at least 0 and below 1\. Received: 1\.0\.$"),
        ({"learning_rate": "0"}, {}, r"^--learning-rate must be above 0\. Received: 0\.0\.$"),
        ({"learning_rate": "nan"}, {}, r"^--learning-rate must be a number\. Received: nan\.$"),
        ({"require_accuracy": "75"}, {}, r"^--require-accuracy must be at least 0 and at most 1\. Received: 75\.0\.$"),
        (
            {"validation": "0.5", "test": "0.5"},
            {},
            r"^validation and test must leave a share for training: their sum must be below 1\. Received: 0\.5 ",
        ),
        ({}, {"LIMELIGHT_BATCH_SIZE": "1.5"}, r"^LIMELIGHT_BATCH_SIZE must be a whole number\. Received: '1\.5'\.$"),
    ],
)
def test_an_error_names_the_source_of_the_value(flags, environment, message):
    with pytest.raises(UsageError, match=message):
        resolve_settings(flags, environment)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[study]\nseed = 3\n", r"has an unknown setting 'seed'\. The settings are: data, task, text, label, .*seeds"),
        ("[study]\nseeds = true\n", r"seeds in .*study\.toml must be a whole number\. Received: True\."),
        ("[study]\nseeds = '3'\n", r"seeds in .*study\.toml must be a whole number\. Received: '3'\."),
        ("seeds = 3\n", r"must hold one table, \[study\], and nothing else\. Received: seeds\."),
        ("", r"must hold one table, \[study\], and nothing else\. Received: an empty file\."),
        ("[study\n", r"study\.toml is not valid TOML: .*line 1"),
        (b"\xff\xfe", r"study\.toml is not valid TOML: .*utf-8"),
    ],
)
def test_errors_in_the_file(tmp_path, content, message):
    file = tmp_path / "study.toml"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UsageError, match=message):
        resolve_settings({}, {}, str(file))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UsageError, match=r"--config .*none\.toml cannot be read: No such file or directory\."):
        resolve_settings({}, {}, str(tmp_path / "none.toml"))


def test_training_settings_are_those_that_change_a_run():
    assert Settings(seeds=5, out="a", examples=1).training_settings() == Settings().training_settings()
    assert Settings(units=3).training_settings() != Settings().training_settings()
