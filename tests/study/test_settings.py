"""Settings come from flag, environment, file and default, in this order, and a wrong one says where it came from."""

import dataclasses

import pytest

from limelight.study import Settings, UsageError, resolve

pytestmark = pytest.mark.backend_free


def test_defaults():
    assert resolve({}, {}) == Settings()
    assert Settings().source == "movie-reviews"
    assert Settings().seeds == 3


def test_flag_before_environment_before_file_before_default(tmp_path):
    file = tmp_path / "study.toml"
    file.write_text('[study]\nseeds = 5\nbatch-size = 16\nlearning_rate = 1\nsource = "from.csv"\n')
    environment = {"LIMELIGHT_BATCH_SIZE": "32", "LIMELIGHT_UNITS": "8", "LIMELIGHT_EPOCHS": "", "LIMELIGHT_OTHER": "x"}

    settings = resolve({"units": "4", "source": None, "require_accuracy": "0.75"}, environment, str(file))

    assert settings == dataclasses.replace(
        Settings(), seeds=5, batch_size=32, learning_rate=1.0, source="from.csv", units=4, require_accuracy=0.75
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
        ({"task": "regress"}, {}, r"^--task must be one of classify\. Received: 'regress'\.$"),
        (
            {"validation": "0.5", "test": "0.5"},
            {},
            r"^validation and test must leave a share to train on\. Received: 0\.5 ",
        ),
        ({}, {"LIMELIGHT_BATCH_SIZE": "1.5"}, r"^LIMELIGHT_BATCH_SIZE must be a whole number\. Received: '1\.5'\.$"),
    ],
)
def test_a_wrong_value_names_its_origin(flags, environment, message):
    with pytest.raises(UsageError, match=message):
        resolve(flags, environment)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[study]\nseed = 3\n", r"has no setting named 'seed'\. Settings are: source, text, label, .*seeds"),
        ("[study]\nseeds = true\n", r"seeds in .*study\.toml must be a whole number\. Received: True\."),
        ("[study]\nseeds = '3'\n", r"seeds in .*study\.toml must be a whole number\. Received: '3'\."),
        ("seeds = 3\n", r"must hold one table, \[study\], and nothing else\. Received: seeds\."),
        ("", r"must hold one table, \[study\], and nothing else\. Received: an empty file\."),
        ("[study\n", r"study\.toml is no TOML: .*line 1"),
        (b"\xff\xfe", r"study\.toml is no TOML: .*utf-8"),
    ],
)
def test_a_wrong_file_says_what_is_wrong(tmp_path, content, message):
    file = tmp_path / "study.toml"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UsageError, match=message):
        resolve({}, {}, str(file))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UsageError, match=r"--config .*none\.toml cannot be read: No such file or directory\."):
        resolve({}, {}, str(tmp_path / "none.toml"))


def test_settings_of_runs_leave_out_what_shapes_no_run():
    assert Settings(seeds=5, out="a", examples=1).of_runs() == Settings().of_runs()
    assert Settings(units=3).of_runs() != Settings().of_runs()
