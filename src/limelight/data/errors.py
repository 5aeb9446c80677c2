"""The one error for anything that is wrong with a user's data."""


class DataError(ValueError):
    """Something is wrong with the data: one line that says what must hold, what arrived and what to do."""

    def __init__(self, message: str) -> None:
        # A file's own text may be quoted in a message; whatever it holds, the message stays one line.
        super().__init__(" ".join(message.split()))
