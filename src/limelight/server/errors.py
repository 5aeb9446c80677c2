"""The error of a request that the server refuses."""


class InputError(ValueError):
    """An input that cannot be used; the message is for the person who sent it.

    Args:
        message: What must hold.
        status: The status of HTTP.
    """

    def __init__(self, message: str, status: int = 422) -> None:
        super().__init__(message)
        self.status = status
