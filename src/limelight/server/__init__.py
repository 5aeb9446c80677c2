"""A local page on which one types a text and sees the prediction and attention of a model at once."""

import secrets
import socket
from typing import Any

try:
    import starlette  # noqa: F401
    import uvicorn
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "`limelight.server` needs starlette and uvicorn. Run: pip install 'limelight[serve]'"
    ) from error

from limelight.server.application import LOCAL_HOSTS, create_app
from limelight.server.explorer import Explorer

__all__ = ["Explorer", "create_app", "serve"]


_MAX_CONNECTIONS = 64


def serve(
    model: Any, *, host: str = "127.0.0.1", port: int = 8765, token: str | None = None, on_start: Any = print
) -> None:
    """Serve the page of an estimator until Ctrl-C.

    Args:
        model: A fitted estimator of texts, see `limelight.models.load`.
        host: The address to listen on. By default only this machine can connect.
        port: The port; 0 for any that is free.
        token: What visitors must know, part of the printed address. Without one, a token is made if others can connect.
        on_start: Called with the address of the page when the server is ready.

    Raises:
        ValueError: The model reads no texts.
        OSError: The port is in use.
    """
    is_local = host in ("127.0.0.1", "localhost", "::1")
    token = token or (None if is_local else secrets.token_urlsafe(16))
    app = create_app(Explorer(model), hosts=LOCAL_HOSTS if is_local else ("*",), token=token)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, port), family=family) as listener:
        address = f"[{host}]" if ":" in host else host
        on_start(f"http://{address}:{listener.getsockname()[1]}/" + (f"?token={token}" if token else ""))
        config = uvicorn.Config(
            app, log_level="error", access_log=False, server_header=False, ws="none", limit_concurrency=_MAX_CONNECTIONS
        )
        uvicorn.Server(config).run(sockets=[listener])
