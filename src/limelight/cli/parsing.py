"""Parse the command line."""

import argparse
import dataclasses
import difflib
import re
import textwrap
from collections.abc import Sequence
from typing import Any, NoReturn

import limelight
from limelight.cli import comparing, explaining, serving
from limelight.exceptions import UsageError
from limelight.study.settings import GROUPS, TASKS, Settings, flag

_DESCRIPTION = textwrap.dedent("""\
    Train a model with attention, the same without it, and a simple baseline; compare them; show what the attention looks
    at. The task is found from the data: classify or regress texts and series, translate, or forecast. The report is
    OUT/report.html.
    """)
_EPILOG = textwrap.dedent("""\
    Each setting is taken from the first source that has it: the flag, the environment variable (LIMELIGHT_BATCH_SIZE=32),
    the table [study] of the --config file (batch-size = 32), the default.

    exit codes: 0 success; 1 a bug; 2 wrong usage; 3 bad data, or a file that cannot be read or written; 4 below
    --require-accuracy; 130 and 143 interrupted. Finished runs are kept: run the same command to continue.

    examples:
      limelight study
      limelight study reviews.csv --text review --label sentiment --seeds 5
      limelight study wines.csv --task regress --text notes --label points
      limelight study train.en train.el
      limelight study japanese-vowels --json > results.json
    """)

_PREDICT_EPILOG = textwrap.dedent("""\
    examples:
      limelight predict limelight-study/movie-reviews/model.keras reviews.csv > labelled.csv
      limelight predict model.keras "A dull film." --json --attention
    """)

_SHOW_EPILOG = textwrap.dedent("""\
    examples:
      limelight show limelight-study/movie-reviews/model.keras "A dull film."
      limelight show encoder.keras ids.npy --tokens words.txt
      limelight show translator.keras inputs.npz --out page.html
    """)


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Parse the arguments after the program's name.

    Returns:
        A namespace with `command`, its options, and for a study `flags`, the settings as typed.

    Raises:
        UsageError: an unknown command or option.
        SystemExit: --help or --version, which are printed here.
    """
    parser = _Parser(
        prog="limelight", description="Attention for Keras 3: build it, train it, see it, test it.", allow_abbrev=False
    )
    parser.add_argument("--version", action="version", version=f"limelight {limelight.__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", parser_class=_Parser)
    _add_study(commands)
    _add_predict(commands)
    explaining.add_parser(commands)
    _add_show(commands)
    comparing.add_parser(commands)
    serving.add_parser(commands)
    namespace, unknown = parser.parse_known_args(arguments)
    if unknown:
        chosen = commands.choices.get(namespace.command, parser)
        options = re.findall(r"(?<![\w-])--[a-z-]+", chosen.format_help())
        similar = difflib.get_close_matches(unknown[0].split("=")[0], options, n=1)
        hint = f". Did you mean {similar[0]}?" if similar else ""
        chosen.error(f"unrecognized arguments: {' '.join(unknown)}{hint}")
    if namespace.command is None:
        parser.error("a command is required: study, predict, explain, compare, show or serve")
    if namespace.command == "study":
        namespace.flags = {field.name: getattr(namespace, field.name) for field in dataclasses.fields(Settings)}
    return namespace


def _add_study(commands: Any) -> None:
    parser = commands.add_parser(
        "study",
        usage="limelight study [DATA [TRANSLATIONS]] [options]",
        help="train with and without attention, compare, and show what the attention looks at",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--config", metavar="FILE", help="a TOML file with settings in a table [study]")
    parser.add_argument("--fresh", action="store_true", help="replace an earlier study in the output folder")
    parser.add_argument("--json", action="store_true", help="print only the results, as JSON, to stdout")
    parser.add_argument("--quiet", action="store_true", help="print no progress")
    fields = dataclasses.fields(Settings)
    for group, title in GROUPS.items():
        settings = parser.add_argument_group(title)
        for field in (field for field in fields if field.metadata["group"] == group):
            # Values stay text here: settings from all sources are checked in one place.
            help = _describe(field).replace("%", "%%")
            if field.name == "data":
                settings.add_argument("data", nargs="?", metavar="DATA", help=help)
                # Like --translations, whose default it must not replace.
                settings.add_argument(
                    "translations", nargs="?", metavar="TRANSLATIONS", default=argparse.SUPPRESS, help=argparse.SUPPRESS
                )
            else:
                settings.add_argument(flag(field.name), dest=field.name, metavar=_metavar(field), help=help)


def _describe(field: dataclasses.Field[Any]) -> str:
    """Return the help of a setting, with its defaults and the tasks that it belongs to."""
    metadata, notes = field.metadata, []
    if metadata["tasks"] != TASKS and metadata["group"] in ("data", "study", "model"):
        notes.append(", ".join(metadata["tasks"]))
    default = metadata["default"]
    if default not in (None, ()):
        default = ",".join(map(str, default)) if isinstance(default, tuple) else default
        others = "".join(f", {task} {value}" for task, value in metadata["by_task"].items())
        notes.append(f"default: {default}{others}")
    return metadata["help"] + "".join(f" ({note})" for note in notes)


def _add_predict(commands: Any) -> None:
    parser = commands.add_parser(
        "predict",
        help="predict with a model that a study or an estimator saved",
        description="Print the rows of INPUT with the predictions of MODEL as new columns.",
        epilog=_PREDICT_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "model", metavar="MODEL", help="a .keras file of an estimator, such as OUT/model.keras of a study"
    )
    parser.add_argument(
        "input",
        metavar="INPUT",
        help="a .csv, .tsv, .jsonl, .parquet or .txt file of texts; a text; - for lines of standard input; a .npy or .ts file "
        "of series; for a forecaster a table of series; for a translator also a .tmx file, or any file of lines",
    )
    parser.add_argument(
        "translations",
        metavar="TRANSLATIONS",
        nargs="?",
        help="for a translator: a text file with the translation of each line of INPUT, to be printed beside the prediction",
    )
    parser.add_argument(
        "--text",
        metavar="COLUMN",
        help="the column of the texts, or their language in a .tmx file (default: the only one, or a usual name)",
    )
    parser.add_argument("--beam", type=int, metavar="N", help="beginnings that the search of a translator keeps")
    parser.add_argument("--n-best", type=int, metavar="N", help="print N translations of each text; needs --json")
    parser.add_argument("--sample", action="store_true", help="draw translations at random instead of searching")
    parser.add_argument("--temperature", type=float, metavar="T", help="of --sample: below 1 for more probable ones")
    parser.add_argument("--seed", type=int, metavar="S", help="of --sample: draw the same translations each time")
    parser.add_argument(
        "--json", action="store_true", help="print one JSON document, with the probability of each class"
    )
    parser.add_argument("--attention", action="store_true", help="add the attention of each input to the JSON document")


_COLUMNS = ("text", "label", "group", "source", "target", "time", "value", "series")


def _add_show(commands: Any) -> None:
    parser = commands.add_parser(
        "show",
        help="show the attention of any .keras file on an input, as a page",
        description="Run the model in a .keras file on INPUT, capture the attention of its layers, and open it as a page. Says "
        "what was found, what was not, and why. No code in the file is run.",
        epilog=_SHOW_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("model", metavar="MODEL", help="a .keras file, of an estimator or of any Keras model")
    parser.add_argument(
        "inputs",
        metavar="INPUT",
        nargs="+",
        help="for an estimator what `limelight predict` takes: a text, a file of texts, series or a table; for another model a "
        ".npy file for each of its inputs, a .npz file with all of them by name, or an image",
    )
    parser.add_argument("--out", metavar="FILE", help="write the page there, and do not open it")
    parser.add_argument("--examples", type=int, metavar="N", default=8, help="show at most N examples (default: 8)")
    parser.add_argument(
        "--text", metavar="COLUMN", help="the column of the texts (default: the only one, or a usual name)"
    )
    parser.add_argument(
        "--tokens",
        metavar="FILE",
        help="the words of each example: a line each in a text file, or lists in a .json file",
    )
    parser.add_argument(
        "--import",
        dest="modules",
        metavar="PACKAGE",
        action="append",
        default=[],
        help="import a package first, which has the layers that the file names",
    )
    parser.add_argument(
        "--layout",
        metavar="AXES",
        help="the axes of weights if they cannot be told, such as btns: see `limelight.capture`",
    )


def _metavar(field: dataclasses.Field[Any]) -> str:
    if field.name in _COLUMNS:
        return "COLUMN"
    if field.name in ("known", "observed", "static"):
        return "COLUMNS"
    names = {
        "out": "DIR",
        "translations": "FILE",
        "quantiles": "X,X,X",
        "task": "TASK",
        **dict.fromkeys(("unit", "mechanism", "architecture"), "NAME"),
    }
    return names.get(field.name, "X" if "float" in str(field.type) else "N")


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are one line, without the usage."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}{'' if message.endswith('?') else '.'} See `{self.prog} --help`.")
