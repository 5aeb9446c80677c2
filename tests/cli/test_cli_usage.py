"""What is typed wrong, and data that are wrong: an exit code, one line on stderr, and nothing written."""

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import limelight
import reviews
from limelight.cli import main

pytestmark = pytest.mark.backend_free


def called(*arguments, **environment):
    """Call the command in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "limelight", *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
    )


def test_the_version():
    done = called("--version")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"limelight {limelight.__version__}\n", "")


def test_help_names_every_setting_and_exit_code(capsys):
    assert main(["study", "--help"]) == 0
    text = capsys.readouterr().out
    for word in (
        "SOURCE",
        "--text",
        "--seeds",
        "--batch-size",
        "--require-accuracy",
        "(default: 3)",
        "130",
        "--config",
    ):
        assert word in text
    assert main(["--help"]) == 0
    assert "study" in capsys.readouterr().out


def test_help_loads_nothing_heavy():
    program = (
        "import sys; from limelight.cli import main; main(['study', '--help']); "
        "heavy = {'numpy', 'keras', 'jax', 'tensorflow', 'torch', 'rich', 'matplotlib', 'scipy', 'sklearn', 'tokenizers'}; "
        "print(sorted(heavy & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stderr == "[]\n"


def test_a_reader_that_has_seen_enough_is_no_error():
    # As `limelight study --help | head -1` does.
    with subprocess.Popen(
        [sys.executable, "-m", "limelight", "study", "--help"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 0


def test_the_installed_command_is_this_one():
    configuration = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))
    assert configuration["project"]["scripts"] == {"limelight": "limelight.cli:main"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "a command is needed: study. `limelight --help` says what can be typed."),
        (["stud"], "argument COMMAND: invalid choice: 'stud' (choose from 'study'). `limelight --help`"),
        (["study", "--seed", "3"], "unrecognized arguments: --seed. `limelight --help` says"),
        (
            ["study", "--seeds"],
            "argument --seeds: expected one argument. `limelight study --help` says what can be typed.",
        ),
        (["study", "--seeds", "x"], "--seeds must be a whole number. Received: 'x'."),
        (["study", "--require-accuracy", "75"], "--require-accuracy must be at least 0 and at most 1. Received: 75.0."),
        (["study", "--config", "none.toml"], "--config none.toml cannot be read: No such file or directory."),
    ],
)
def test_wrong_usage_is_one_line(capsys, arguments, message):
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"limelight: {message}")
    assert err.count("\n") == 1


@pytest.fixture
def place(tmp_path, monkeypatch):
    """An empty current folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


GOOD = "".join(f"{text},{label}\n" for text, label in reviews.rows(30))
MEASURED = "text,label\n" + "".join(f"film {number},{number / 7}\n" for number in range(40))


@pytest.mark.parametrize(
    ("content", "arguments", "message"),
    [
        pytest.param(None, [], "There is no 'data.csv'.", id="missing file"),
        pytest.param("", [], "'data.csv' must hold data. The file is empty.", id="empty file"),
        pytest.param(
            "text,label\n" + GOOD, ["--text", "txt"], "It has the columns 'text', 'label'.", id="wrong column"
        ),
        pytest.param(
            "text,label,id\n" + GOOD.replace("\n", ",1\n"), ["--label", "text"], "must be two columns", id="same column"
        ),
        pytest.param("text,label\na film,good\na plot,good\n", [], "at least two classes.", id="a single class"),
        pytest.param("text,label\n,good\n ,bad\n", [], "None is left of 2 rows", id="only empty texts"),
        pytest.param(MEASURED, ["--task", "classify"], "holds 40 different numbers", id="labels that are measurements"),
        pytest.param("text,label\n" + GOOD + "hm,mixed\n", [], "class 'mixed' has one.", id="a class with one example"),
        pytest.param("text,label\na,good\nb,bad\nc,good\nd,bad\n", [], "too few for the share", id="too few to split"),
        pytest.param(b"text,label\ncaf\xe9,good\n", [], "(line 2)", id="not UTF-8"),
        pytest.param(b"\x00\x01\x02" * 50, [], "A NUL byte", id="no text at all"),
    ],
)
def test_bad_data_are_one_line_and_nothing_is_written(capsys, place, content, arguments, message):
    if content is not None:
        Path("data.csv").write_bytes(content if isinstance(content, bytes) else content.encode())
    before = sorted(place.iterdir())
    assert main(["study", "data.csv", *arguments]) == 3
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("limelight: ")
    assert message in err
    assert err.count("\n") == 1
    assert "Traceback" not in err
    assert sorted(place.iterdir()) == before


def test_another_folder_is_not_written_into(capsys, place):
    reviews.write(Path("reviews.csv"))
    Path("out").mkdir()
    Path("out", "thesis.tex").write_text("mine")
    assert main(["study", "reviews.csv", "--out", "out"]) == 2
    assert capsys.readouterr().err == (
        "limelight: --out must be an empty folder or one that an earlier study wrote. out holds 'thesis.tex': "
        "use another --out.\n"
    )
    assert [path.name for path in Path("out").iterdir()] == ["thesis.tex"]


def test_a_folder_that_cannot_be_made_is_one_line(place):
    reviews.write(Path("reviews.csv"))
    Path("file").write_text("")
    done = called("study", "reviews.csv", "--out", "file/out")
    assert done.returncode == 3
    assert done.stderr == "limelight: file/out/study.json: Not a directory.\n"


def test_a_name_cannot_steer_the_terminal(capsys, place):
    assert main(["study", "\x1b[31mred\n.csv"]) == 3
    err = capsys.readouterr().err
    assert "\x1b" not in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("backend", "message"),
    [
        ("numpy", "limelight: KERAS_BACKEND must be one of jax, tensorflow, torch. Received: 'numpy'.\n"),
        ("theano", "limelight: KERAS_BACKEND must be one of jax, tensorflow, torch. Received: 'theano'.\n"),
    ],
)
def test_a_backend_that_cannot_train_is_one_line(place, backend, message):
    reviews.write(Path("reviews.csv"))
    done = called("study", "reviews.csv", KERAS_BACKEND=backend)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", message)


def test_a_bug_shows_its_traceback(capsys, monkeypatch):
    def broken(*_):
        raise RuntimeError("a bug")

    monkeypatch.setattr("limelight.cli.commands.run", broken)
    assert main(["study"]) == 1
    err = capsys.readouterr().err
    assert "Traceback" in err
    assert err.endswith(
        "RuntimeError: a bug\nlimelight: this is a bug of limelight. Please report it with the lines above.\n"
    )
