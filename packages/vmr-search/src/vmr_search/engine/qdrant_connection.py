"""The connection to a server of Qdrant: which addresses are taken, and where its key may go."""

from __future__ import annotations

import logging
import os
import urllib.parse
import warnings
from pathlib import Path
from typing import Any

from vmr_common.boundary import boundary
from vmr_common.errors import UserError
from vmr_search.engine.bounded_answers import PLAIN, bounded

KEY = "QDRANT_API_KEY"
"""Environment variable that holds the key of a server."""
SERVER = "QDRANT_URL"
"""Environment variable that says which server the key is for."""
SECONDS = 60
"""How long a server may take to answer."""

_HERE = ("localhost", "127.0.0.1", "::1")


def connected(place: Path | str) -> Any:
    """A client of a server, by its address, or of the embedded mode, in a folder.

    Raises:
        UserError: if the client is not installed, the address is not possible, or the key is for another server.
    """
    try:
        import qdrant_client
    except ImportError:
        raise UserError("the engine qdrant needs its client: pip install 'vmr-search[qdrant]'") from None
    logging.getLogger("httpx").setLevel(logging.WARNING)  # it tells of every request
    with boundary(f"{place}: Qdrant cannot open it"):
        if isinstance(place, Path):
            return qdrant_client.QdrantClient(path=str(place), force_disable_check_same_thread=True)
        address = urllib.parse.urlsplit(place)
        if address.username or address.password or address.query:
            raise UserError(f"the address of Qdrant holds a key; give it as {KEY} in the environment instead")
        if address.scheme not in ("http", "https") or not address.hostname:
            raise UserError(f"{place}: expected an address such as https://host:6333, or a folder")
        if (key := os.environ.get(KEY)) and address.scheme == "http" and address.hostname not in _HERE:
            raise UserError(f"{place}: {KEY} is set, and would go over the net unencrypted; use https")
        if key and _server_of(os.environ.get(SERVER, "")) != _server_of(str(place)):
            # a folder of an index from elsewhere may name any server
            raise UserError(
                f"{place}: {KEY} is set, and {SERVER} does not say that it is for this server; set "
                f"{SERVER}={_server_of(str(place))} if it is, or unset {KEY}"
            )
        with warnings.catch_warnings():
            # that the key is not encrypted on its way inside this machine
            warnings.simplefilter("ignore")
            return qdrant_client.QdrantClient(
                url=place,
                api_key=key or None,
                timeout=SECONDS,
                check_compatibility=False,
                metadata=PLAIN,
                event_hooks={"response": [bounded(SECONDS)]},
            )


def _server_of(url: str) -> str:
    """Scheme, host and port of an address."""
    parts = urllib.parse.urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}".lower()
