"""The one error for anything that is wrong with a user's data."""


class DataError(ValueError):
    """Something is wrong with the data: one line that says what must hold, what arrived and what to do."""

    def __init__(self, message: str) -> None:
        # A message may quote what a file holds or is called: whatever that is, it stays one line that can be printed.
        super().__init__(" ".join(message.encode("utf-8", "replace").decode("utf-8").split()))
