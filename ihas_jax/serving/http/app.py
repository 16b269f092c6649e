"""The service: requests in, probabilities out.

Starlette is used for routes and requests, since the vocabulary of a bundle checks rows with better
messages than classes of a web framework could.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import numpy as np
from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from ihas_jax.errors import InputError
from ihas_jax.serving.bundle import Bundle
from ihas_jax.serving.http.body import TooLargeError, read_rows
from ihas_jax.serving.http.facts import model_facts
from ihas_jax.serving.http.metrics import Metrics
from ihas_jax.serving.stream import Predicted, Stream

_PAGE = {
    "/": ("page.html", "text/html"),
    "/page.js": ("page.js", "text/javascript"),
    "/page.css": ("page.css", "text/css"),
}
"""The page by its paths: a file, and its type."""
_SAFE = {
    "Content-Security-Policy": "default-src 'self'; img-src data:",
    "X-Content-Type-Options": "nosniff",
}
Handler = Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True)
class Limits:
    """What a service takes.

    Attributes:
      rows: rows in a request.
      bytes: bytes in the body of a request.
      seconds: how long the body of a request may take to arrive.
    """

    rows: int = 10_000
    bytes: int = 8 << 20
    seconds: float = 10.0


def make_app(bundle: Bundle, limits: Limits, hosts: tuple[str, ...] = ("*",)) -> Starlette:
    """The service of a bundle as an ASGI application.

    Args:
      bundle: the models; `Bundle.warm_up` should have been called.
      limits: what the service takes.
      hosts: the names under which clients may call it, so that no page of another site can; "*" for
        every name.
    """
    names, stream = bundle.schema.names, Stream(bundle)
    metrics = Metrics(names, np.array(bundle.schema.sizes) - 1)
    facts = model_facts(bundle)
    # one thread predicts, while the others read requests
    thread = ThreadPoolExecutor(1, "predict")

    def compute(rows: Any) -> Predicted:
        ids = bundle.encoder(rows, judged=False)
        found = stream(ids)
        metrics.rows(ids, found.cluster)
        return found

    async def predict(request: Request) -> Response:
        rows = read_rows(await _body(request, limits), names, limits.rows)
        if rows == []:
            return JSONResponse([])
        loop = asyncio.get_running_loop()
        found = _shown(await loop.run_in_executor(thread, compute, rows))
        return JSONResponse(found[0] if isinstance(rows, dict) else found)

    async def health(request: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def model(request: Request) -> Response:
        return JSONResponse(facts)

    async def counts(request: Request) -> Response:
        return Response(metrics.text(), media_type="text/plain; version=0.0.4")

    routes = [
        Route("/predict", _counted(metrics, predict), methods=["POST"]),
        Route("/health", _counted(metrics, health)),
        Route("/model", _counted(metrics, model)),
        Route("/metrics", counts),
        *(Route(path, _static(*resource)) for path, resource in _PAGE.items()),
    ]
    return Starlette(
        routes=routes,
        middleware=[Middleware(_OwnHosts, hosts=hosts)],
        exception_handlers={HTTPException: _refused},
    )


class _OwnHosts:
    """Refuses requests under other names, in the form of all errors; Starlette's has plain text."""

    def __init__(self, app: ASGIApp, hosts: tuple[str, ...]) -> None:
        self._app, self._hosts = app, hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request."""
        app = self._app
        if scope["type"] == "http" and "*" not in self._hosts:
            host = Headers(scope=scope).get("host", "")
            if host.partition(":")[0] not in self._hosts:
                names = " or ".join(self._hosts)
                app = _error(400, f"The Host of the request is {host!r}; call the service {names}.")
        await app(scope, receive, send)


def _counted(metrics: Metrics, handler: Handler) -> Handler:
    """A handler whose requests are counted, and whose errors become answers."""

    async def counted(request: Request) -> Response:
        start = time.perf_counter()
        try:
            response = await handler(request)
        except InputError as error:
            status = 413 if isinstance(error, TooLargeError) else 400
            response = _error(status, str(error))
        except TimeoutError:
            response = _error(408, "The body of the request took too long to arrive.")
        except ClientDisconnect:
            response = _error(400, "The client has gone.")
        metrics.request(request.url.path, response.status_code, time.perf_counter() - start)
        return response

    return counted


async def _body(request: Request, limits: Limits) -> bytes:
    """The body of a request.

    Raises:
      TooLargeError: it has too many bytes.
      TimeoutError: it does not arrive in time.
    """
    parts, size = [], 0
    async with asyncio.timeout(limits.seconds):
        async for part in request.stream():
            size += len(part)
            if size > limits.bytes:
                raise TooLargeError(
                    f"The body has more than {limits.bytes:,} bytes; send the rows in several "
                    "requests, or start the service with a larger --max-bytes."
                )
            parts.append(part)
    return b"".join(parts)


def _shown(found: Predicted) -> list[dict[str, Any]]:
    """Predictions as JSON has them; a cluster is there where rows are routed."""
    rows = [{"probability": p} for p in found.probability.tolist()]
    if found.cluster is None:
        return rows
    pairs = zip(rows, found.cluster.tolist(), strict=True)
    return [row | {"cluster": cluster} for row, cluster in pairs]


async def _refused(request: Request, error: Exception) -> Response:
    """The answer to a request for another path or by another method."""
    assert isinstance(error, HTTPException)
    return _error(error.status_code, error.detail, error.headers)


def _error(status: int, message: str, headers: Mapping[str, str] | None = None) -> Response:
    return JSONResponse({"error": message}, status, headers)


def _static(name: str, kind: str) -> Handler:
    content = (files(__package__) / "page" / name).read_bytes()

    async def static(request: Request) -> Response:
        return Response(content, media_type=kind, headers=_SAFE)

    return static
