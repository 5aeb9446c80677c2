"""The errors of a study, each with the exit code that its command ends with."""


class StudyError(Exception):
    """A study cannot go on, for a reason that its user can act on. The message is one line."""

    exit_code = 3


class UsageError(StudyError, ValueError):
    """A setting is wrong, or the output folder is not this study's to write."""

    exit_code = 2


class TrainingError(StudyError, ArithmeticError):
    """Training gave a loss that is no number."""

    exit_code = 3


class QualityError(StudyError):
    """A study ended well, with a result below what was required."""

    exit_code = 4
