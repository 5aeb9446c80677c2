"""What can be typed."""

import argparse
import dataclasses
import textwrap
from collections.abc import Sequence
from typing import Any, NoReturn

import limelight
from limelight.study.errors import UsageError
from limelight.study.settings import Settings, flag

_EPILOG = textwrap.dedent("""\
    A setting is taken from the first that has it: the flag, the environment (LIMELIGHT_BATCH_SIZE=32), the table [study] of
    the file that --config names (batch-size = 32), the default.

    exit codes: 0 done; 1 a bug; 2 wrong usage; 3 bad data, or a file that cannot be read or written; 4 below
    --require-accuracy; 130 and 143 interrupted. Finished runs are kept: the same command goes on where it was.

    examples:
      limelight study
      limelight study reviews.csv --text review --label sentiment --seeds 5
      limelight study japanese-vowels --json > results.json
    """)


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Parse what follows the program's name.

    Returns:
        A namespace: `command`, its own options, and `flags`, the settings as typed.

    Raises:
        UsageError: an unknown command or option.
        SystemExit: --help or --version, which are answered here.
    """
    parser = _Parser(
        prog="limelight", description="Attention for Keras 3: build it, train it, see it, test it.", allow_abbrev=False
    )
    parser.add_argument("--version", action="version", version=f"limelight {limelight.__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", parser_class=_Parser)
    _add_study(commands)
    found = parser.parse_args(arguments)
    if found.command is None:
        parser.error("a command is needed: study")
    found.flags = {field.name: getattr(found, field.name) for field in dataclasses.fields(Settings)}
    return found


def _add_study(commands: Any) -> None:
    parser = commands.add_parser(
        "study",
        help="train with and without attention, compare, and show what the model looks at",
        description="Train an LSTM classifier with attention, the same one with mean pooling, and a linear model; compare "
        "them; show what the attention looks at. Writes OUT/report.html.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--config", metavar="FILE", help="a TOML file with settings in a table [study]")
    parser.add_argument("--fresh", action="store_true", help="replace the study that the output folder holds")
    parser.add_argument("--json", action="store_true", help="print the results as JSON, and nothing else, on stdout")
    parser.add_argument("--quiet", action="store_true", help="print no progress")
    settings = parser.add_argument_group("settings")
    for field in dataclasses.fields(Settings):
        # Values stay text here: settings are checked in one place, wherever they come from.
        help = field.metadata["help"].replace("%", "%%")
        if field.default is not None:
            help += f" (default: {field.default})"
        if field.name == "source":
            settings.add_argument("source", nargs="?", metavar="SOURCE", help=help)
        else:
            settings.add_argument(flag(field.name), dest=field.name, metavar=_metavar(field), help=help)


def _metavar(field: dataclasses.Field[Any]) -> str:
    if "choices" in field.metadata:
        return "|".join(field.metadata["choices"])
    return {"text": "COLUMN", "label": "COLUMN", "out": "DIR"}.get(
        field.name, "X" if "float" in str(field.type) else "N"
    )


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are one line, without the usage above it."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}. `{self.prog} --help` says what can be typed.")
