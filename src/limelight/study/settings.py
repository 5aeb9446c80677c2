"""The settings of a study, with defaults, help and limits, read from flags, environment variables or a file."""

import dataclasses
import math
import operator
import types
import typing
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from limelight.exceptions import UsageError

PREFIX = "LIMELIGHT_"
TABLE = "study"


def _setting(default: Any, help: str, **limits: Any) -> Any:
    return dataclasses.field(default=default, metadata={"help": help, **limits})


@dataclasses.dataclass(frozen=True)
class Settings:
    """The settings of `limelight study`.

    Settings with `affects_training=False` may change between two studies in the same output folder: they decide what is
    reported and where, or name the data, which the split's fingerprint identifies. All others change the result of a run.

    Raises:
        UsageError: a value has the wrong type or is outside its limits.

    Example:
        >>> Settings(seeds=5).seeds
        5
        >>> Settings(dropout=1.0)
        Traceback (most recent call last):
        limelight.exceptions.UsageError: dropout must be at least 0 and below 1. Received: 1.0.
    """

    source: str = _setting("movie-reviews", "the name of a data set, a file or a folder", affects_training=False)
    text: str | None = _setting(None, "the column that holds the text", affects_training=False)
    label: str | None = _setting(None, "the column that holds the label", affects_training=False)
    group: str | None = _setting(
        None, "the column of groups whose examples stay in one part of the split", affects_training=False
    )
    validation: float = _setting(
        0.1, "share of the examples for early stopping", above=0.0, below=1.0, affects_training=False
    )
    test: float = _setting(0.2, "share of the examples for the test", above=0.0, below=1.0, affects_training=False)
    seeds: int = _setting(
        3, "number of trainings of each model, with seeds 1, 2, ...", at_least=1, affects_training=False
    )
    out: str | None = _setting(None, "the output folder (default: limelight-study/NAME)", affects_training=False)
    epochs: int = _setting(20, "maximum number of epochs", at_least=1)
    epoch_steps: int = _setting(
        100, "minimum training steps of an epoch, in which a small data set is passed several times", at_least=1
    )
    patience: int = _setting(2, "epochs without a lower validation loss before training stops", at_least=1)
    batch_size: int = _setting(64, "examples in a training step", at_least=1)
    learning_rate: float = _setting(2e-3, "learning rate of Adam", above=0.0)
    averaging: float = _setting(
        0.98, "momentum of the running average of the weights; 0 for none", at_least=0.0, below=1.0
    )
    units: int = _setting(64, "units of the LSTM in each direction", at_least=1)
    width: int = _setting(64, "size of the word vectors", at_least=1)
    dropout: float = _setting(0.5, "share of the features dropped during training", at_least=0.0, below=1.0)
    word_dropout: float = _setting(0.2, "share of the words dropped during training", at_least=0.0, below=1.0)
    vocabulary: int = _setting(10_000, "maximum number of words in the vocabulary", at_least=1)
    length: int = _setting(512, "maximum number of words of a text, or steps of a series", at_least=1)
    examples: int = _setting(8, "examples of each kind in the report", at_least=0, affects_training=False)
    require_accuracy: float | None = _setting(
        None,
        "exit with 4 if the mean test accuracy of the attention model is lower",
        at_least=0.0,
        at_most=1.0,
        affects_training=False,
    )

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            object.__setattr__(self, field.name, _check(field.name, getattr(self, field.name), field.name))
        if self.validation + self.test >= 1:
            raise UsageError(
                f"validation and test must leave a share for training: their sum must be below 1. Received: "
                f"{self.validation:g} and {self.test:g}."
            )

    def training_settings(self) -> dict[str, Any]:
        """Return the settings that change the result of a run."""
        return {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
            if field.metadata.get("affects_training", True)
        }


_FIELDS = {field.name: field for field in dataclasses.fields(Settings)}
_TYPES = typing.get_type_hints(Settings)
_TYPE_NAMES = {int: "a whole number", float: "a number", str: "text"}
_COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    "at_least": operator.ge,
    "above": operator.gt,
    "at_most": operator.le,
    "below": operator.lt,
}


def resolve_settings(
    flags: Mapping[str, str | None], environment: Mapping[str, str], file: str | None = None
) -> Settings:
    """Return the settings, each from the first source that has it: flag, environment variable, TOML file, default.

    Args:
        flags: Settings as typed on the command line; None for a flag that was not given.
        environment: The environment variables; `LIMELIGHT_BATCH_SIZE` sets `batch_size`. Empty variables are ignored.
        file: A TOML file with a table `[study]`, or None. Its keys are the names of settings, with `-` or `_`.

    Returns:
        The validated settings.

    Raises:
        UsageError: a value is wrong (the message names its source), or the file cannot be read or has an unknown key.
    """
    values: dict[str, Any] = {}
    if file is not None:
        for name, value in _read_file(file).items():
            values[name] = _check(name, value, f"{name} in {file}")
    for name in _FIELDS:
        if text := environment.get(PREFIX + name.upper()):
            values[name] = _parse(name, text, PREFIX + name.upper())
    for name, text in flags.items():
        if text is not None:
            values[name] = _parse(name, text, flag(name) if name != "source" else "SOURCE")
    return Settings(**values)


def flag(name: str) -> str:
    """Return the command-line flag of a setting."""
    return "--" + name.replace("_", "-")


def _read_file(file: str) -> dict[str, Any]:
    """Read the `[study]` table of a TOML file; its keys become names of settings."""
    import tomllib

    try:
        document = tomllib.loads(Path(file).read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"--config {file} cannot be read: {error.strerror}.") from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"--config {file} is not valid TOML: {error}.") from error
    table = document.get(TABLE)
    if not isinstance(table, dict) or len(document) != 1:
        raise UsageError(
            f"--config {file} must hold one table, [{TABLE}], and nothing else. "
            f"Received: {', '.join(document) or 'an empty file'}."
        )
    values = {name.replace("-", "_"): value for name, value in table.items()}
    if unknown := sorted(set(values) - set(_FIELDS)):
        raise UsageError(f"{file} has an unknown setting {unknown[0]!r}. The settings are: {', '.join(_FIELDS)}.")
    return values


def _type(name: str) -> type:
    """Return the type of a setting, without an alternative None."""
    hint = _TYPES[name]
    if isinstance(hint, types.UnionType):
        return next(part for part in typing.get_args(hint) if part is not type(None))
    return hint


def _parse(name: str, text: str, origin: str) -> Any:
    """Convert text to the type of a setting, and check it."""
    try:
        value = _type(name)(text)
    except ValueError:
        raise UsageError(f"{origin} must be {_TYPE_NAMES[_type(name)]}. Received: {text!r}.") from None
    return _check(name, value, origin)


def _check(name: str, value: Any, origin: str) -> Any:
    """Return the value of a setting, or raise if its type is wrong or it is outside the limits."""
    expected, limits = _type(name), _FIELDS[name].metadata
    if value is None and _FIELDS[name].default is None:
        return None
    if expected is float and type(value) is int:
        value = float(value)
    if type(value) is not expected or (isinstance(value, float) and not math.isfinite(value)):
        raise UsageError(f"{origin} must be {_TYPE_NAMES[expected]}. Received: {value!r}.")
    checks = [(name, limits[name]) for name in _COMPARISONS if name in limits]
    if not all(_COMPARISONS[name](value, limit) for name, limit in checks):
        requirement = " and ".join(f"{name.replace('_', ' ')} {limit:g}" for name, limit in checks)
        raise UsageError(f"{origin} must be {requirement}. Received: {value!r}.")
    return value
