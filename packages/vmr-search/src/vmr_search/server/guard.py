"""The checks that every request must pass, and the headers of every answer."""

from __future__ import annotations

import re
from collections.abc import Collection

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from vmr_search.server.errors import failure
from vmr_search.server.limits import MOST_TARGET

LOCAL = frozenset({"localhost", "127.0.0.1", "[::1]"})
"""Hosts of a server that only this machine reaches."""
_PORT = re.compile(r":\d+$")
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; media-src 'self' blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
_HEADERS = {
    "content-security-policy": _POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
}


class Guard:
    """Refuses requests that a foreign site makes through a visitor's browser, and those that are too long.

    A page of another site may point a name of its own to 127.0.0.1 (DNS rebinding) and would then be of one origin
    with this server: the header ``Host`` tells. It may also embed or fetch what this server has: ``Sec-Fetch-Site``
    tells. Programs send no such header and pass.

    Args:
        app: The application.
        hosts: That the header ``Host`` may name, without their port; None: any.
    """

    def __init__(self, app: ASGIApp, hosts: Collection[str] | None = None) -> None:
        self.app, self.hosts = app, hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers, or hands the request on."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":  # there is no other door
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        refused = self._refusal(scope)
        if refused is None:
            await self.app(scope, receive, with_headers)
        else:
            status, code, message = refused
            await failure(status, message, code)(scope, receive, with_headers)

    def _refusal(self, scope: Scope) -> tuple[int, str, str] | None:
        headers = Headers(scope=scope)
        host = _PORT.sub("", headers.get("host", "")).lower()
        if self.hosts is not None and host not in self.hosts:
            return 403, "foreign_host", "this server answers under localhost alone"
        if len(scope.get("raw_path") or b"") + len(scope["query_string"]) > MOST_TARGET:
            return 414, "too_long", f"the address has more than {MOST_TARGET:,} bytes"
        foreign = headers.get("sec-fetch-site") in ("cross-site", "same-site")
        if foreign and not (headers.get("sec-fetch-mode") == "navigate" and scope["path"] == "/"):
            return 403, "foreign_site", "another site may not use this server"
        return None
