"""Wrong usage and bad data: an exit code, one line on stderr, and nothing written."""

import io
import os
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path
from types import SimpleNamespace

import pytest

import limelight
import reviews
from limelight.cli import commands, main, streams

pytestmark = pytest.mark.backend_free


ESTIMATE = {"value": 0.5, "low": 0.4, "high": 0.6}


def run_command(*arguments, **environment):
    """Run the command in another process."""
    return subprocess.run(
        [sys.executable, "-m", "limelight", *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
    )


@pytest.mark.subprocess
def test_the_version():
    process = run_command("--version")
    assert (process.returncode, process.stdout, process.stderr) == (0, f"limelight {limelight.__version__}\n", "")


def test_help_lists_settings_and_exit_codes(capsys):
    assert main(["study", "--help"]) == 0
    text = capsys.readouterr().out
    for word in (
        "DATA",
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


@pytest.mark.subprocess
def test_help_imports_nothing_heavy():
    program = (
        "import sys; from limelight.cli import main; main(['study', '--help']); "
        "heavy = {'numpy', 'keras', 'jax', 'tensorflow', 'torch', 'rich', 'matplotlib', 'scipy', 'sklearn', 'tokenizers'}; "
        "print(sorted(heavy & set(sys.modules)), file=sys.stderr)"
    )
    process = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert process.stderr == "[]\n"


@pytest.mark.subprocess
def test_a_closed_pipe_is_no_error():
    # As in `limelight study --help | head -1`.
    with subprocess.Popen(
        [sys.executable, "-m", "limelight", "study", "--help"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 0


def test_the_installed_command():
    configuration = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))
    assert configuration["project"]["scripts"] == {"limelight": "limelight.cli:main"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "a command is required: study, predict, explain, compare, show or serve. See `limelight --help`."),
        (
            ["stud"],
            "argument COMMAND: invalid choice: 'stud' (choose from 'study', 'predict', 'explain', 'show', 'compare', 'serve'). "
            "See `limelight --help`.",
        ),
        (
            ["study", "--seed", "3"],
            "unrecognized arguments: --seed. Did you mean --seeds? See `limelight study --help`.",
        ),
        (["explain", "m.keras", "a.csv", "--txt", "b"], "unrecognized arguments: --txt b. Did you mean --text? See"),
        (["predict", "m.keras", "a", "b", "more"], "unrecognized arguments: more. See `limelight predict --help`."),
        (
            ["study", "--seeds"],
            "argument --seeds: expected one argument. See `limelight study --help`.",
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
def folder(tmp_path, monkeypatch):
    """An empty current folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


GOOD = "".join(f"{text},{label}\n" for text, label in reviews.rows(30))
MEASUREMENTS = "text,label\n" + "".join(f"film {number},{number / 7}\n" for number in range(40))


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
        pytest.param(
            MEASUREMENTS, ["--task", "classify"], "holds 40 different numbers", id="labels that are measurements"
        ),
        pytest.param("text,label\n" + GOOD + "hm,mixed\n", [], "class 'mixed' has one.", id="a class with one example"),
        pytest.param(
            "text,label\na,good\nb,bad\nc,good\nd,bad\n", [], "too few for the requested share", id="too few to split"
        ),
        pytest.param(b"text,label\ncaf\xe9,good\n", [], "(line 2)", id="not UTF-8"),
        pytest.param(b"\x00\x01\x02" * 50, [], "a NUL byte", id="not text"),
    ],
)
def test_bad_data_is_one_line_and_nothing_is_written(capsys, folder, content, arguments, message):
    if content is not None:
        Path("data.csv").write_bytes(content if isinstance(content, bytes) else content.encode())
    before = sorted(folder.iterdir())
    assert main(["study", "data.csv", *arguments]) == 3
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("limelight: ")
    assert message in err
    assert err.count("\n") == 1
    assert "Traceback" not in err
    assert sorted(folder.iterdir()) == before


def test_a_folder_with_other_files_is_not_written_to(capsys, folder):
    reviews.write(Path("reviews.csv"))
    Path("out").mkdir()
    Path("out", "thesis.tex").write_text("mine")
    assert main(["study", "reviews.csv", "--out", "out"]) == 2
    assert capsys.readouterr().err == (
        "limelight: --out must be an empty folder or the folder of an earlier study. out holds 'thesis.tex'. "
        "Use another --out.\n"
    )
    assert [path.name for path in Path("out").iterdir()] == ["thesis.tex"]


@pytest.mark.subprocess
def test_a_folder_that_cannot_be_created_is_one_line(folder):
    reviews.write(Path("reviews.csv"))
    Path("file").write_text("")
    process = run_command("study", "reviews.csv", "--out", "file/out")
    assert process.returncode == 3
    assert process.stderr == "limelight: file/out/study.json: Not a directory.\n"


@pytest.mark.subprocess
@pytest.mark.parametrize("closed", ["1>&-", "2>&-", "0<&- 1>&- 2>&-"])
@pytest.mark.parametrize(("arguments", "code"), [("--version", 0), ("study none.csv", 3)])
def test_a_closed_stream_is_no_traceback(folder, closed, arguments, code):
    script = f"{shlex.quote(sys.executable)} -m limelight {arguments} {closed}"
    process = subprocess.run(["sh", "-c", script], capture_output=True, text=True)
    assert process.returncode == code
    assert "Traceback" not in process.stdout + process.stderr


def test_characters_that_a_terminal_lacks_are_replaced(monkeypatch):
    buffer = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(buffer, "cp1252"))
    streams.prepare()
    print("\u22121.3 points, 12\u202f%, \u6771\u4eac \u2026 caf\u00e9")
    sys.stdout.flush()
    assert buffer.getvalue().decode("cp1252").rstrip() == "-1.3 points, 12 %, ?? \u2026 caf\u00e9"


def test_the_summary_has_the_metric_of_the_verdict(capsys):
    metrics = {
        "accuracy": {"value": 0.98, "low": 0.97, "high": 0.9876},
        "average_precision": {"value": 0.3124, "low": 0.2, "high": 0.4},
        "log_loss": {"value": 0.1, "low": None, "high": None},
    }
    results = {
        "models": [{"title": "Class shares", "metrics": metrics, "runs": [0, 0]}],
        "comparisons": [{"metric": "average_precision"}, {"metric": "log_loss"}],
        "verdict": ["No difference."],
        "caveats": [],
    }
    commands._print_results(results, Path("report.html"), SimpleNamespace(json=False, quiet=False))
    head, row, blank, verdict, *_ = capsys.readouterr().out.splitlines()
    headings = ("accuracy (95 % interval)", "average precision (95 % interval)", "log loss (95 % interval)", "seeds")
    assert head.split() == " ".join(headings).split()
    assert head.index(headings[1]) == row.index("0.312")
    assert " ".join(row.split()) == "Class shares 98.0 % (97.0 to 98.8) 0.312 (0.200 to 0.400) 0.100 2"
    assert head.index("seeds") + 5 == len(row)
    assert (blank, verdict) == ("", "No difference.")


def test_a_file_name_cannot_control_the_terminal_through_the_results(capsys):
    results = {"models": [], "verdict": ["Does it help on \x1b]0;x\x07?"], "caveats": [], "comparisons": []}
    results["models"] = [{"title": "a", "metrics": {"accuracy": ESTIMATE, "log_loss": ESTIMATE}, "runs": [0]}]
    commands._print_results(results, Path("\x1b[31mred", "report.html"), SimpleNamespace(json=False, quiet=False))
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert "\x07" not in out
    assert "[31mred" in out


def test_a_name_cannot_control_the_terminal(capsys, folder):
    assert main(["study", "\x1b[31mred\n.csv"]) == 3
    err = capsys.readouterr().err
    assert "\x1b" not in err
    assert err.count("\n") == 1


@pytest.mark.subprocess
@pytest.mark.parametrize(
    ("backend", "message"),
    [
        ("numpy", "limelight: KERAS_BACKEND must be one of jax, tensorflow, torch. Received: 'numpy'.\n"),
        ("theano", "limelight: KERAS_BACKEND must be one of jax, tensorflow, torch. Received: 'theano'.\n"),
    ],
)
def test_a_backend_that_cannot_train_is_one_line(folder, backend, message):
    reviews.write(Path("reviews.csv"))
    process = run_command("study", "reviews.csv", KERAS_BACKEND=backend)
    assert (process.returncode, process.stdout, process.stderr) == (2, "", message)


def test_a_bug_prints_its_traceback(capsys, monkeypatch):
    def fail(*_):
        raise RuntimeError("a bug")

    monkeypatch.setattr("limelight.cli.commands.run", fail)
    assert main(["study"]) == 1
    err = capsys.readouterr().err
    assert "Traceback" in err
    assert err.endswith(
        "RuntimeError: a bug\nlimelight: This is a bug in limelight. Please report it with the lines above.\n"
    )
