"""The web application: its routes, its limits, and who may use it."""

import contextlib
import functools
import hmac
import importlib.resources
import json
import threading
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import anyio
import anyio.to_thread
import numpy as np
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from limelight.server.errors import InputError, quote, to_line
from limelight.server.explorer import Changes, Explorer
from limelight.server.tiles import AbandonedError

COOKIE = "limelight-token"
# The share of the queries of a tile that was read: 1 for an exact one.
SHARE_HEADER = "limelight-share"
# Of anything that is not the text itself in a request.
_OVERHEAD = 1 << 16
# The page has the colours and letters of the report.
_REPORT_STYLE = "report.css"
_FIELDS = ("text", "silenced", "forbidden")
_MEDIA_TYPES = {"js": "text/javascript", "css": "text/css", "html": "text/html"}
_HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}
LOCAL_HOSTS = ("127.0.0.1", "localhost", "[::1]", "::1")


class Busy(Exception):
    """Too many requests are waiting for the model."""


def create_app(
    explorer: Explorer, *, hosts: tuple[str, ...] = LOCAL_HOSTS, token: str | None = None, queue: int = 8
) -> Any:
    """Return the application, for any ASGI server.

    The model answers one request at a time; others wait. A page of another site cannot use it: requests must name one of
    `hosts`, those that run the model must be JSON, and no answer allows another origin.

    Args:
        explorer: The model.
        hosts: Names by which the server may be called; ("*",) for any.
        token: What every request must bring, as a cookie or as `?token=`; None where only this machine can connect.
        queue: Requests that may wait for the model; more are refused with status 503.

    Raises:
        ValueError: `hosts` holds "*" without a token.
    """
    if "*" in hosts and token is None:
        raise ValueError("A server for any host needs a token. Received: hosts=('*',), token=None. Give a token.")
    routes = [
        Route("/", _page),
        Route("/assets/{name}", _asset),
        Route("/model", _describe),
        Route("/run", _run, methods=["POST"]),
        Route("/runs/{run}", _get_run),
        Route("/runs/{run}/tile", _tile),
    ]
    middleware = [
        Middleware(TrustedHostMiddleware, allowed_hosts=[*hosts], www_redirect=False),
        Middleware(_Guard, token=token),
    ]
    app = Starlette(
        routes=routes,
        middleware=middleware,
        exception_handlers={
            InputError: _refuse,
            Busy: _busy,
            ClientDisconnect: _gone,
            AbandonedError: _gone,
            Exception: _fail,
        },
        lifespan=_lifespan,
    )
    app.state.explorer, app.state.queue, app.state.waiting = explorer, queue, 0
    return app


@contextlib.asynccontextmanager
async def _lifespan(app: Starlette) -> AsyncIterator[None]:
    # Locks of anyio belong to the event loop.
    app.state.model_limiter = anyio.CapacityLimiter(1)
    app.state.tile_limiter = anyio.CapacityLimiter(2)
    app.state.exact_tile_limiter = anyio.CapacityLimiter(1)
    yield


class _Guard:
    """Ask for the token, and add the headers that keep other sites out."""

    def __init__(self, app: Any, token: str | None) -> None:
        self.app, self.token = app, token

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request, cookie = Request(scope), None
        if self.token is not None:
            given = request.query_params.get("token")
            expected = self.token.encode()
            if not hmac.compare_digest((given or request.cookies.get(COOKIE) or "").encode(), expected):
                answer = _error(401, "This server needs a token. Open the address that it printed when it started.")
                await answer(scope, receive, functools.partial(_send_with_headers, send, None))
                return
            cookie = given and f"{COOKIE}={given}; HttpOnly; SameSite=Strict; Path=/"
        await self.app(scope, receive, functools.partial(_send_with_headers, send, cookie))


async def _send_with_headers(send: Any, cookie: str | None, message: Any) -> None:
    if message["type"] == "http.response.start":
        headers = {**_HEADERS, **({"set-cookie": cookie} if cookie else {})}
        message = {**message, "headers": [*message["headers"], *((k.encode(), v.encode()) for k, v in headers.items())]}
    await send(message)


async def _page(request: Request) -> Response:
    return HTMLResponse(_read("serve.html"))


async def _asset(request: Request) -> Response:
    name = request.path_params["name"]
    if name not in _list_assets() and name != _REPORT_STYLE:
        return PlainTextResponse("There is no such file.", 404)
    return Response(_read(name), media_type=_MEDIA_TYPES[name.rpartition(".")[2]])


async def _describe(request: Request) -> Response:
    return JSONResponse(request.app.state.explorer.describe())


async def _run(request: Request) -> Response:
    explorer: Explorer = request.app.state.explorer
    document = await _read_json(request, limit=6 * explorer.max_characters + _OVERHEAD)
    unknown = [name for name in document if name not in _FIELDS]
    if unknown:
        raise InputError(f"The fields must be of {', '.join(_FIELDS)}. Received: {quote(unknown[0])}. Leave it out.")
    text = document.get("text")
    if not isinstance(text, str):
        raise InputError(f'`text` must be a string, such as {{"text": "A fine film."}}. Received: {quote(text)}.')
    changes = Changes.from_document(document)
    state = request.app.state
    if state.waiting > state.queue:
        raise Busy
    state.waiting += 1
    try:
        run = await _in_thread(state.model_limiter, lambda: explorer.run(text, changes).describe())
    finally:
        state.waiting -= 1
    return JSONResponse(run)


async def _get_run(request: Request) -> Response:
    return JSONResponse(_find_run(request).describe())


async def _tile(request: Request) -> Response:
    run, query, state = _find_run(request), request.query_params, request.app.state
    attention_map = run.maps.get(query.get("map"))
    if attention_map is None:
        raise InputError(
            f"`map` must be one of {', '.join(run.maps)}. Received: {quote(query.get('map'))}. Choose one of these."
        )
    head, row, column, zoom = (_read_number(query, name) for name in ("head", "row", "column", "zoom"))
    is_sampled = bool(_read_number(query, "sampled")) if "sampled" in query else False
    # A tile of many queries takes seconds when all are read for the first time; others shall not wait.
    limiter = state.exact_tile_limiter if zoom and not is_sampled else state.tile_limiter
    compute = functools.partial(state.explorer.tiles.compute, run.number, attention_map, head, row, column, zoom)
    tile = await _run_while_wanted(request, limiter, functools.partial(compute, sampled=is_sampled))
    # Two arrays of little-endian float32, after their shape.
    body = np.asarray(tile.means.shape, "<u4").tobytes() + np.stack([tile.means, tile.maxima]).astype("<f4").tobytes()
    return Response(body, media_type="application/octet-stream", headers={SHARE_HEADER: f"{tile.share:.6g}"})


async def _run_while_wanted(request: Request, limiter: anyio.CapacityLimiter, function: Callable[..., Any]) -> Any:
    """Run a function in a thread; its argument `is_wanted` returns False as soon as the client is gone."""
    is_gone = threading.Event()
    outcome: list[Any] = []

    async def watch() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass
        is_gone.set()

    async with anyio.create_task_group() as group:
        group.start_soon(watch)
        try:
            outcome.append(await _in_thread(limiter, lambda: function(is_wanted=lambda: not is_gone.is_set())))
        except Exception as error:
            # A group would raise it as one of several.
            outcome.append(error)
        group.cancel_scope.cancel()
    if isinstance(outcome[0], Exception):
        raise outcome[0]
    return outcome[0]


def _find_run(request: Request) -> Any:
    try:
        return request.app.state.explorer.get(request.path_params["run"])
    except KeyError:
        number = quote(request.path_params["run"])
        raise InputError(f"A run must be one of the last. Received: {number}. Run the text again.", 404) from None


async def _in_thread(limiter: anyio.CapacityLimiter, function: Callable[[], Any]) -> Any:
    return await anyio.to_thread.run_sync(function, limiter=limiter)


async def _read_json(request: Request, limit: int) -> dict[str, Any]:
    """Read the body of a request, which must be a JSON object, without holding more than `limit` bytes.

    Raises:
        InputError: It is larger, or not a JSON object.
    """
    if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
        content_type = quote(request.headers.get("content-type"))
        raise InputError(
            f"The body must be JSON. Received: content type {content_type}. Set the header `Content-Type: application/json`.",
            415,
        )
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > limit:
            raise InputError(f"The body must have at most {limit:,} bytes. Received: more. Send a shorter text.", 413)
    try:
        document = json.loads(body.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise InputError(
            f"The body must be JSON in UTF-8. Received: {type(error).__name__}: {to_line(error)}."
        ) from error
    if not isinstance(document, dict):
        raise InputError(
            f'The body must be a JSON object, such as {{"text": "A fine film."}}. Received: {type(document).__name__}.'
        )
    return document


def _read_number(query: Mapping[str, str], name: str) -> int:
    value = query.get(name, "")
    if not (value.isascii() and value.isdigit() and len(value) < 10):
        raise InputError(f"`{name}` must be a whole number from 0. Received: {quote(value)}.")
    return int(value)


def _error(status: int, message: str, **headers: str) -> Response:
    return JSONResponse({"error": message}, status, headers)


def _refuse(request: Request, error: Exception) -> Response:
    return _error(getattr(error, "status", 422), str(error))


def _busy(request: Request, error: Exception) -> Response:
    return _error(503, "Too many requests are waiting for the model. Try again.", **{"retry-after": "1"})


def _fail(request: Request, error: Exception) -> Response:
    # Starlette raises the error again, so that its traceback is in the log.
    return _error(500, f"The server failed: {type(error).__name__}. Its log has the details.")


def _gone(request: Request, error: Exception) -> Response:
    return _error(400, "The request ended early.")


@functools.cache
def _list_assets() -> frozenset[str]:
    folder = importlib.resources.files("limelight.server").joinpath("assets")
    return frozenset(each.name for each in folder.iterdir() if each.name.rpartition(".")[2] in _MEDIA_TYPES)


@functools.cache
def _read(name: str) -> str:
    folder = "report" if name == _REPORT_STYLE else "server"
    return importlib.resources.files("limelight").joinpath(folder, "assets", name).read_text(encoding="utf-8")
