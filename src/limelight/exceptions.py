"""Errors that a user can correct. Wrong arguments raise Python's own `ValueError` and `TypeError`."""


class DataError(ValueError):
    """The data cannot be used. The message is one line: what must hold, what was received, what to do."""

    def __init__(self, message: str) -> None:
        # A message may quote a file's name or content: make sure that it stays one printable line.
        super().__init__(" ".join(message.encode("utf-8", "replace").decode("utf-8").split()))


class ColumnError(DataError):
    """A column that is needed cannot be found."""


class NumericLabelsError(DataError):
    """Labels that should be classes are measurements."""


class UsageError(ValueError):
    """A setting or a command-line argument is wrong, or the output folder belongs to something else."""


class AttentionError(ValueError):
    """The model has no attention, or none of the kind that is needed."""


class TrainingError(ArithmeticError):
    """The training loss is not finite."""
