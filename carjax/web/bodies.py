"""Keeps the bodies of requests small, for all but uploads, which are read as they arrive."""

from __future__ import annotations

import asyncio

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

UPLOAD = ("POST", "/jobs")
# The longest edit is a list of regions to blur.
MOST_BYTES = 64_000


class SmallBodies:
    """ASGI middleware: a body of more than `MOST_BYTES` is answered 413, a silent one 408.

    A framework reads all of a JSON body into memory before anything can refuse it.
    """

    def __init__(self, app: ASGIApp, idle_seconds: float) -> None:
        self._app = app
        self._idle_seconds = idle_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Reads the body, and hands it on whole."""
        if scope["type"] != "http" or (scope["method"], scope["path"]) == UPLOAD:
            await self._app(scope, receive, send)
            return
        body, more = b"", True
        while more:
            try:
                async with asyncio.timeout(self._idle_seconds):
                    message = await receive()
            except TimeoutError:
                await _refusal("the request stood still; try again", 408)(scope, receive, send)
                return
            if message["type"] == "http.disconnect":
                return
            body += message.get("body", b"")
            more = message.get("more_body", False)
            if len(body) > MOST_BYTES:
                await _refusal("the request is too large", 413)(scope, receive, send)
                return
        handed = False

        async def whole() -> Message:
            nonlocal handed
            if handed:
                return await receive()
            handed = True
            return {"type": "http.request", "body": body, "more_body": False}

        await self._app(scope, whole, send)


def _refusal(detail: str, status: int) -> JSONResponse:
    # The rest may still be coming: the connection ends with the answer.
    return JSONResponse({"detail": detail}, status, {"Connection": "close"})
