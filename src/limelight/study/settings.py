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


TASKS = ("classify", "regress", "translate", "forecast")
_TEXTS = ("classify", "regress")
_SPLIT = ("classify", "regress", "translate")

# The groups of the settings in the help, in this order.
GROUPS = {
    "data": "data",
    "translate data": "data of a translation",
    "forecast data": "data of a forecast",
    "study": "study",
    "training": "training",
    "model": "models",
    "translate": "models of a translation",
    "forecast": "models of a forecast",
}


def _setting(
    default: Any, help: str, group: str, *, tasks: tuple[str, ...] = TASKS, by_task: Any = None, **limits: Any
) -> Any:
    """Declare a setting.

    Args:
        default: The default.
        help: The help.
        group: A key of `GROUPS`.
        tasks: The tasks that the setting belongs to.
        by_task: Defaults of single tasks.
        limits: Limits of the value, and `affects_training`.
    """
    metadata = {"help": help, "group": group, "tasks": tasks, "by_task": by_task or {}, "default": default, **limits}
    # None says that the value was not given: the task, from which the default follows, may be found in the data.
    return dataclasses.field(default=default if tasks == TASKS and not by_task else None, metadata=metadata)


@dataclasses.dataclass(frozen=True)
class Settings:
    """The settings of `limelight study`.

    A setting that is None was not given; `for_task` fills in the defaults of a task. Settings with `affects_training=False` may
    change between two studies in the same output folder: they decide what is reported and where, or name the data, which the
    split's fingerprint identifies. All others change the result of a run.

    Raises:
        UsageError: a value has the wrong type or is outside its limits.

    Example:
        >>> Settings(seeds=5).seeds
        5
        >>> Settings(dropout=1.0)
        Traceback (most recent call last):
        limelight.exceptions.UsageError: dropout must be at least 0 and below 1. Received: 1.0.
        >>> Settings().for_task("forecast").units
        32
    """

    data: str = _setting("movie-reviews", "the name of a data set, a file or a folder", "data", affects_training=False)
    task: str | None = _setting(
        None, "classify, regress, translate or forecast (default: found from the data)", "data", choices=TASKS
    )
    text: str | None = _setting(None, "the column that holds the text", "data", tasks=_TEXTS, affects_training=False)
    label: str | None = _setting(
        None,
        "the column that holds the label, or the number to predict",
        "data",
        tasks=_TEXTS,
        affects_training=False,
    )
    group: str | None = _setting(
        None,
        "the column of groups whose examples stay in one part of the split",
        "data",
        tasks=_SPLIT,
        affects_training=False,
    )
    validation: float = _setting(
        0.1,
        "share of the examples for early stopping",
        "data",
        tasks=_SPLIT,
        above=0.0,
        below=1.0,
        affects_training=False,
    )
    test: float = _setting(
        0.2, "share of the examples for the test", "data", tasks=_SPLIT, above=0.0, below=1.0, affects_training=False
    )
    translations: str | None = _setting(
        None,
        "a file with the translation of each line of DATA; or give it as second argument",
        "translate data",
        tasks=("translate",),
        affects_training=False,
    )
    source: str | None = _setting(
        None, "the column of the texts to translate", "translate data", tasks=("translate",), affects_training=False
    )
    target: str | None = _setting(
        None, "the column of their translations", "translate data", tasks=("translate",), affects_training=False
    )
    time: str | None = _setting(
        None, "the column of the times", "forecast data", tasks=("forecast",), affects_training=False
    )
    value: str | None = _setting(
        None, "the column of the values", "forecast data", tasks=("forecast",), affects_training=False
    )
    series: str | None = _setting(
        None, "the column that names the series", "forecast data", tasks=("forecast",), affects_training=False
    )
    known: tuple[str, ...] = _setting(
        (), "columns, with commas, that are known in advance", "forecast data", tasks=("forecast",)
    )
    observed: tuple[str, ...] = _setting(
        (), "columns that are known up to the present", "forecast data", tasks=("forecast",)
    )
    static: tuple[str, ...] = _setting(
        (), "columns that are constant in each series", "forecast data", tasks=("forecast",)
    )
    horizon: int | None = _setting(
        None, "steps to forecast (default: a season, or 12)", "forecast data", tasks=("forecast",), at_least=1
    )
    season: int | None = _setting(
        None, "steps in a season (default: from the times)", "forecast data", tasks=("forecast",), at_least=1
    )
    folds: int | None = _setting(
        None,
        "forecasts of each series in the test, a horizon apart (default: a fifth of its steps; 1 for 30 or more series)",
        "forecast data",
        tasks=("forecast",),
        at_least=1,
    )
    seeds: int = _setting(
        3, "number of trainings of each model, with seeds 1, 2, ...", "study", at_least=1, affects_training=False
    )
    out: str | None = _setting(
        None, "the output folder (default: limelight-study/NAME)", "study", affects_training=False
    )
    examples: int = _setting(8, "examples of each kind in the report", "study", at_least=0, affects_training=False)
    explain: int = _setting(
        100,
        "test examples (or steps of translations) on which the attention is tested as an explanation; 0 for none",
        "study",
        at_least=0,
        affects_training=False,
    )
    require_accuracy: float | None = _setting(
        None,
        "exit with 4 if the mean test accuracy of the attention model is lower",
        "study",
        tasks=("classify",),
        at_least=0.0,
        at_most=1.0,
        affects_training=False,
    )
    epochs: int = _setting(20, "maximum number of epochs", "training", by_task={"translate": 60}, at_least=1)
    epoch_steps: int = _setting(
        100,
        "minimum training steps of an epoch, in which a small data set is passed several times",
        "training",
        at_least=1,
    )
    patience: int = _setting(2, "epochs without a lower validation loss before training stops", "training", at_least=1)
    batch_size: int = _setting(64, "examples in a training step", "training", at_least=1)
    learning_rate: float = _setting(2e-3, "learning rate of Adam", "training", above=0.0)
    averaging: float = _setting(
        0.98, "momentum of the running average of the weights; 0 for none", "training", at_least=0.0, below=1.0
    )
    units: int = _setting(
        64,
        "units of the LSTM in each direction",
        "model",
        by_task={"translate": 128, "forecast": 32},
        at_least=1,
    )
    width: int = _setting(64, "size of the vectors of words or units", "model", tasks=_SPLIT, at_least=1)
    dropout: float = _setting(
        0.5,
        "share of the features dropped during training",
        "model",
        by_task={"translate": 0.2, "forecast": 0.1},
        at_least=0.0,
        below=1.0,
    )
    word_dropout: float = _setting(
        0.2, "share of the words dropped during training", "model", tasks=_TEXTS, at_least=0.0, below=1.0
    )
    vocabulary: int = _setting(10_000, "maximum number of words in the vocabulary", "model", tasks=_SPLIT, at_least=1)
    length: int = _setting(
        512,
        "maximum number of words of a text, or steps of a series",
        "model",
        tasks=_SPLIT,
        by_task={"translate": 64},
        at_least=1,
    )
    unit: tuple[str, ...] = _setting(
        (),
        "word, character or subword; or two of these for source and target, with a comma (default: words where texts have "
        "several, else characters)",
        "translate",
        tasks=("translate",),
        choices=("word", "character", "subword"),
        most=2,
    )
    mechanism: str = _setting(
        "bahdanau", "the attention: bahdanau or luong", "translate", tasks=("translate",), choices=("bahdanau", "luong")
    )
    beam: int = _setting(4, "beginnings that the search keeps", "translate", tasks=("translate",), at_least=1)
    past: int | None = _setting(
        None,
        "past steps that are read (default: twice the horizon or season)",
        "forecast",
        tasks=("forecast",),
        at_least=1,
    )
    architecture: str = _setting(
        "lstm", "lstm or transformer", "forecast", tasks=("forecast",), choices=("lstm", "transformer")
    )
    quantiles: tuple[float, ...] = _setting(
        (0.1, 0.5, 0.9), "levels to forecast, with commas; the middle one is compared", "forecast", tasks=("forecast",)
    )

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            object.__setattr__(self, field.name, _check(field.name, getattr(self, field.name), field.name))
        shares = [
            field.metadata["default"] if value is None else value
            for field, value in ((_FIELDS[name], getattr(self, name)) for name in ("validation", "test"))
        ]
        if sum(shares) >= 1:
            raise UsageError(
                f"validation and test must leave a share for training: their sum must be below 1. Received: "
                f"{shares[0]:g} and {shares[1]:g}."
            )

    def for_task(self, task: str, reason: str = "as was given") -> "Settings":
        """Return the settings with the defaults of a task.

        Args:
            task: One of `TASKS`.
            reason: Why it is this task, for the error.

        Raises:
            UsageError: a setting that was given belongs to other tasks.
        """
        values: dict[str, Any] = {"task": task}
        for field in dataclasses.fields(self):
            tasks, value = field.metadata["tasks"], getattr(self, field.name)
            if value is None and task in tasks and field.name != "task":
                values[field.name] = field.metadata["by_task"].get(task, field.metadata["default"])
            elif value is not None and task not in tasks:
                raise UsageError(
                    f"{flag(field.name)} is a setting of --task {' or '.join(tasks)}. The task is {task} ({reason}). Leave it "
                    "out, or set another --task."
                )
        return dataclasses.replace(self, **values)

    def training_settings(self) -> dict[str, Any]:
        """Return the settings that change the result of a run; those of other tasks are None."""
        return {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
            if field.metadata.get("affects_training", True)
        }

    def to_dict(self) -> dict[str, Any]:
        """Return the settings of the task, ready for JSON."""
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in dataclasses.asdict(self).items()
            if self.task in (None, *_FIELDS[name].metadata["tasks"])
        }


_FIELDS = {field.name: field for field in dataclasses.fields(Settings)}
_TYPES = typing.get_type_hints(Settings)
_TYPE_NAMES = {int: "a whole number", float: "a number", str: "text", tuple: "a list"}
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
            values[name] = _parse(name, text, flag(name) if name != "data" else "DATA")
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
        hint = next(part for part in typing.get_args(hint) if part is not type(None))
    return typing.get_origin(hint) or hint


def _parse(name: str, text: str, origin: str) -> Any:
    """Convert text to the type of a setting, and check it."""
    expected = _type(name)
    try:
        if expected is tuple:
            element = typing.get_args(_TYPES[name])[0]
            value = tuple(element(part.strip()) for part in text.split(",") if part.strip())
        else:
            value = expected(text)
    except ValueError:
        names = "numbers with commas between them" if expected is tuple else _TYPE_NAMES[expected]
        raise UsageError(f"{origin} must be {names}. Received: {text!r}.") from None
    return _check(name, value, origin)


def _check(name: str, value: Any, origin: str) -> Any:
    """Return the value of a setting, or raise if its type is wrong or it is outside the limits."""
    expected, limits = _type(name), _FIELDS[name].metadata
    if value is None and _FIELDS[name].default is None:
        return None
    if expected is tuple and isinstance(value, list | tuple):
        element = typing.get_args(_TYPES[name])[0]
        value = tuple(element(part) if element is float and type(part) is int else part for part in value)
        if not all(type(part) is element for part in value):
            raise UsageError(f"{origin} must be a list of {_TYPE_NAMES[element]}. Received: {list(value)!r}.")
        if len(value) > limits.get("most", len(value)):
            raise UsageError(f"{origin} must be at most {limits['most']} values. Received: {', '.join(value)}.")
    if expected is float and type(value) is int:
        value = float(value)
    if type(value) is not expected or (isinstance(value, float) and not math.isfinite(value)):
        raise UsageError(f"{origin} must be {_TYPE_NAMES[expected]}. Received: {value!r}.")
    choices = limits.get("choices")
    for part in value if isinstance(value, tuple) else (value,):
        if choices is not None and part not in choices:
            raise UsageError(f"{origin} must be {', '.join(choices[:-1])} or {choices[-1]}. Received: {part!r}.")
    checks = [(name, limits[name]) for name in _COMPARISONS if name in limits]
    if not all(_COMPARISONS[name](value, limit) for name, limit in checks):
        requirement = " and ".join(f"{name.replace('_', ' ')} {limit:g}" for name, limit in checks)
        raise UsageError(f"{origin} must be {requirement}. Received: {value!r}.")
    return value
