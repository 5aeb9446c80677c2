"""What a study does: each setting with its default, its help and its limits, read from flag, environment or file."""

import dataclasses
import math
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from limelight.study.errors import UsageError

PREFIX = "LIMELIGHT_"
TABLE = "study"


def _setting(default: Any, help: str, **limits: Any) -> Any:
    return dataclasses.field(default=default, metadata={"help": help, **limits})


@dataclasses.dataclass(frozen=True)
class Settings:
    """Every setting of `limelight study`.

    Those marked `shapes_runs=False` decide what is reported and where, and may change between two calls that share an
    output folder, or name the data, which the split's fingerprint stands for. All others decide what a run computes.

    Raises:
        UsageError: a value is of the wrong type or outside its limits.

    Example:
        >>> Settings(seeds=5).seeds
        5
        >>> Settings(dropout=1.0)
        Traceback (most recent call last):
        limelight.study.errors.UsageError: dropout must be at least 0 and below 1. Received: 1.0.
    """

    source: str = _setting("movie-reviews", "a named data set, a file or a folder", shapes_runs=False)
    text: str | None = _setting(None, "the column that holds the text", shapes_runs=False)
    label: str | None = _setting(None, "the column that holds the label", shapes_runs=False)
    task: str = _setting("classify", "what is learned", choices=("classify",))
    validation: float = _setting(0.1, "share that stops the training", above=0.0, below=1.0, shapes_runs=False)
    test: float = _setting(0.2, "share that is kept for the test", above=0.0, below=1.0, shapes_runs=False)
    seeds: int = _setting(3, "how often each model is trained, from different seeds", at_least=1, shapes_runs=False)
    out: str | None = _setting(None, "the output folder (default: limelight-study/NAME)", shapes_runs=False)
    epochs: int = _setting(10, "the most passes over the training part", at_least=1)
    patience: int = _setting(2, "stop after so many epochs without a lower validation loss", at_least=1)
    batch_size: int = _setting(64, "examples in one training step", at_least=1)
    learning_rate: float = _setting(2e-3, "step size of Adam", above=0.0)
    averaging: float = _setting(
        0.98, "share of the past in the running average of the weights that is kept", at_least=0.0, below=1.0
    )
    units: int = _setting(64, "units of the LSTM, in each direction", at_least=1)
    width: int = _setting(64, "size of a word's vector", at_least=1)
    dropout: float = _setting(0.5, "share of the features dropped in training", at_least=0.0, below=1.0)
    word_dropout: float = _setting(0.2, "share of the words dropped in training", at_least=0.0, below=1.0)
    vocabulary: int = _setting(10_000, "the most words that are told apart", at_least=1)
    length: int = _setting(512, "words of a text, or steps of a series, that are read at most", at_least=1)
    examples: int = _setting(8, "examples of each kind shown in the report", at_least=0, shapes_runs=False)
    require_accuracy: float | None = _setting(
        None,
        "fail (exit 4) where the attention model's mean test accuracy is lower",
        at_least=0.0,
        at_most=1.0,
        shapes_runs=False,
    )

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            object.__setattr__(self, field.name, _check(field.name, getattr(self, field.name), field.name))
        if self.validation + self.test >= 1:
            raise UsageError(
                f"validation and test must leave a share to train on. Received: {self.validation:g} and {self.test:g}."
            )

    def of_runs(self) -> dict[str, Any]:
        """Return the settings that decide what a run computes."""
        return {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
            if field.metadata.get("shapes_runs", True)
        }


_FIELDS = {field.name: field for field in dataclasses.fields(Settings)}
_TYPES = typing.get_type_hints(Settings)


def resolve(flags: Mapping[str, str | None], environment: Mapping[str, str], file: str | None = None) -> Settings:
    """Return the settings, each from the first that names it: flag, `LIMELIGHT_` variable, TOML file, default.

    Args:
        flags: Settings as typed on a command line; None where a flag was not given.
        environment: The process's environment; `LIMELIGHT_BATCH_SIZE` sets `batch_size`. An empty variable sets nothing.
        file: A TOML file with a table `[study]`, or None. Its keys are the settings' names, with `-` or `_`.

    Returns:
        The settings, checked.

    Raises:
        UsageError: a value is wrong (the message names where it came from), or the file cannot be read or has a key
            that is no setting.
    """
    values: dict[str, Any] = {}
    if file is not None:
        for name, value in _read(file).items():
            values[name] = _check(name, value, f"{name} in {file}")
    for name in _FIELDS:
        if text := environment.get(PREFIX + name.upper()):
            values[name] = _parse(name, text, PREFIX + name.upper())
    for name, text in flags.items():
        if text is not None:
            values[name] = _parse(name, text, flag(name) if name != "source" else "SOURCE")
    return Settings(**values)


def flag(name: str) -> str:
    """Return a setting's name as a command line spells it."""
    return "--" + name.replace("_", "-")


def _read(file: str) -> dict[str, Any]:
    """Read the `[study]` table of a TOML file, with its keys as the settings are named."""
    import tomllib

    try:
        document = tomllib.loads(Path(file).read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"--config {file} cannot be read: {error.strerror}.") from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"--config {file} is no TOML: {error}.") from error
    table = document.get(TABLE)
    if not isinstance(table, dict) or len(document) != 1:
        raise UsageError(
            f"--config {file} must hold one table, [{TABLE}], and nothing else. "
            f"Received: {', '.join(document) or 'an empty file'}."
        )
    values = {name.replace("-", "_"): value for name, value in table.items()}
    if unknown := sorted(set(values) - set(_FIELDS)):
        raise UsageError(f"{file} has no setting named {unknown[0]!r}. Settings are: {', '.join(_FIELDS)}.")
    return values


def _kind(name: str) -> type:
    """Return a setting's type, without the None that it may also be."""
    hint = _TYPES[name]
    if isinstance(hint, types.UnionType):
        return next(part for part in typing.get_args(hint) if part is not type(None))
    return hint


def _parse(name: str, text: str, origin: str) -> Any:
    """Turn what was typed into the setting's type, and check it."""
    kind = _kind(name)
    try:
        value = kind(text)
    except ValueError:
        raise UsageError(f"{origin} must be {_words(kind)}. Received: {text!r}.") from None
    return _check(name, value, origin)


def _check(name: str, value: Any, origin: str) -> Any:
    """Return a setting's value where it is of the right type and within its limits."""
    kind, limits = _kind(name), _FIELDS[name].metadata
    if value is None and _FIELDS[name].default is None:
        return None
    if kind is float and type(value) is int:
        value = float(value)
    if type(value) is not kind or (isinstance(value, float) and not math.isfinite(value)):
        raise UsageError(f"{origin} must be {_words(kind)}. Received: {value!r}.")
    if "choices" in limits and value not in limits["choices"]:
        raise UsageError(f"{origin} must be one of {', '.join(limits['choices'])}. Received: {value!r}.")
    rules = [
        ("at_least", "at least", lambda limit: value >= limit),
        ("above", "above", lambda limit: value > limit),
        ("at_most", "at most", lambda limit: value <= limit),
        ("below", "below", lambda limit: value < limit),
    ]
    stated = [(words, limits[key], holds) for key, words, holds in rules if key in limits]
    if not all(holds(limit) for _, limit, holds in stated):
        needed = " and ".join(f"{words} {limit:g}" for words, limit, _ in stated)
        raise UsageError(f"{origin} must be {needed}. Received: {value!r}.")
    return value


def _words(kind: type) -> str:
    return {int: "a whole number", float: "a number", str: "text"}[kind]
