"""What keeps other sites and names away from the server, and the headers that browsers go by."""

from __future__ import annotations

import ipaddress
import urllib.parse
from collections.abc import Awaitable, Callable

from fastapi import Request, Response
from fastapi.responses import JSONResponse

_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
        "media-src 'self' blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(self), microphone=(), geolocation=()",
}
# Of the OpenAPI page: Swagger UI sets styles from its script.
API_POLICY = _HEADERS["Content-Security-Policy"].replace(
    "style-src 'self'", "style-src 'self' 'unsafe-inline'"
)


def is_local(host: str) -> bool:
    """Whether a name or an address is one by which a computer calls itself."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


async def guard(
    local: bool, request: Request, call_next: Callable[[Request], Awaitable[Response]]
) -> Response:
    """Middleware: headers for every answer; no other site may send a visitor's browser here.

    Args:
        local: as of `app.create_app`.
        request: what came.
        call_next: answers it.
    """
    host = request.headers.get("host", "")
    if local and not is_local(_host(host)):
        words = "this server answers to http://localhost alone; --host opens it to others"
        return JSONResponse({"detail": words}, 403, _HEADERS)
    foreign = request.headers.get("sec-fetch-site") == "cross-site"
    origin = request.headers.get("origin")
    where = ""
    if origin is not None and not same_site(origin, host):
        foreign = True
        where = f": this one comes from {origin}, and is for {host}"
    if foreign and request.method not in ("GET", "HEAD"):
        words = f"requests from other sites are refused{where}"
        return JSONResponse({"detail": words}, 403, _HEADERS)
    response = await call_next(request)
    for name, value in _HEADERS.items():
        response.headers.setdefault(name, value)
    response.headers.setdefault("Cache-Control", "no-store")
    return response


def same_site(origin: str, host: str) -> bool:
    """Whether an Origin and a Host header mean one site; its usual port may be left out."""
    scheme, _, site = origin.lower().partition("://")
    usual = {"http": ":80", "https": ":443"}.get(scheme, "")
    return site.removesuffix(usual) == host.lower().removesuffix(usual)


def _host(given: str) -> str:
    """The name in a Host header, without the port."""
    try:
        return urllib.parse.urlsplit(f"//{given}").hostname or ""
    except ValueError:
        return ""
