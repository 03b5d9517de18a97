"""Runs the server until it is interrupted."""

from __future__ import annotations

import errno
import socket
import sys
import threading
import webbrowser
from collections.abc import Sequence
from pathlib import Path

import uvicorn

from vmr_common.cli.entrypoint import echo
from vmr_common.errors import UserError
from vmr_search.search import VIDEOS, Search
from vmr_search.server.app import create_app
from vmr_search.server.guard import LOCAL
from vmr_search.server.limits import MOST_CONNECTIONS, MOST_TARGET
from vmr_search.server.patience import Patient

_LOCAL = ("127.0.0.1", "localhost", "::1")


def serve(
    search: Search,
    roots: Sequence[Path],
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    open_page: bool = False,
    examples: Sequence[str] = (),
    searches: int | None = None,
    look_into: int = VIDEOS,
    exact: bool = False,
) -> None:
    """Serves a search and its page; returns when the process is told to end.

    Args:
        search: The search.
        roots: Folders outside of which no video is served.
        host: Address to listen at; under the default one only this machine reaches it.
        port: Likewise; 0: any that is free.
        open_page: Open the page in the browser.
        examples: Sentences that the page offers.
        searches: At a time; None: as `create_app`.
        look_into: Videos that a grounding method looks into.
        exact: Score every video.

    Raises:
        UserError: if nothing can listen there.
        KeyboardInterrupt: on Ctrl-C.
    """
    with _listening(host, port) as door:
        port = door.getsockname()[1]
        local = host in _LOCAL
        app = create_app(
            search,
            roots=roots,
            hosts=LOCAL if local else None,
            examples=examples,
            searches=searches,
            look_into=look_into,
            exact=exact,
        )
        config = uvicorn.Config(
            app,
            http=Patient,
            ws="none",
            proxy_headers=False,
            server_header=False,
            log_config=None,
            log_level="error",
            access_log=False,
            h11_max_incomplete_event_size=4 * MOST_TARGET,  # of the request's line and its headers
            limit_concurrency=MOST_CONNECTIONS,
            timeout_keep_alive=15,
            timeout_graceful_shutdown=1,
        )
        shown = host if host != "0.0.0.0" else socket.gethostname()
        page = f"http://{f'[{shown}]' if ':' in shown else shown}:{port}/"
        if not local:
            echo("Everybody on the network can search and watch these videos.")
        echo(f"{page}  (Ctrl-C ends it)")
        sys.stdout.flush()
        if open_page:
            threading.Timer(1.0, webbrowser.open, [page]).start()
        _Server(config, app.state.ended).run(sockets=[door])


class _Server(uvicorn.Server):
    """Ends at once: who has asked for a clip is not waited for."""

    def __init__(self, config: uvicorn.Config, ended: threading.Event) -> None:
        super().__init__(config)
        self._ended = ended

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """As that of uvicorn, once all work has been told to stop."""
        self._ended.set()
        await super().shutdown(sockets)


def _listening(host: str, port: int) -> socket.socket:
    """The socket that takes connections.

    Raises:
        UserError: if the address is not ours, or the port is taken or not allowed.
    """
    if not host.strip():  # to the system that is every address of this machine
        raise UserError(f"--host {host!r}: expected an address, or 0.0.0.0 for all of this machine")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=512)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise UserError(f"--port {port}: is taken on {host}; choose another, or 0 for any") from None
        if error.errno == errno.EACCES:
            raise UserError(
                f"--port {port}: needs rights that you do not have; choose one above 1023"
            ) from None
        raise UserError(f"--host {host}: cannot listen there ({error.strerror or error})") from None
