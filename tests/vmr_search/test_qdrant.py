"""What is Qdrant's own: addresses, keys, killed writers. A server is not tested; see the module."""

import socket
import sys
import time
import types

import numpy as np
import pytest

from vmr_common.errors import UserError
from vmr_search.engine import qdrant, qdrant_collections, qdrant_connection
from vmr_search.engine.bounded_answers import bounded
from vmr_search.engine.moment_index import VideoWindows
from vmr_search.engine.qdrant import QdrantIndex

pytestmark = pytest.mark.e2e  # real decoders, engines or processes

qdrant_client = pytest.importorskip("qdrant_client")
SIZE = 8


def some(names, value=1.0):
    moments = np.array([[0.0, 1.0], [1.0, 2.0]])
    return [VideoWindows(name, 2.0, moments, np.full((2, SIZE), value, np.float32)) for name in names]


@pytest.fixture
def index(tmp_path):
    made = QdrantIndex.create(tmp_path / "index", size=SIZE)
    yield made
    made.close()


def test_a_killed_writer_leaves_no_half_of_a_video(index, monkeypatch):
    index.add(some(["a", "b"]))
    client = index._client._client

    def killed(collection, points, **_):
        if collection == index._client.videos:
            raise KeyboardInterrupt
        type(client).upsert(client, collection, points)

    monkeypatch.setattr(client, "upsert", killed)
    for write in (lambda: index.add(some(["c"], 9.0)), lambda: index.replace(some(["a"], 9.0))):
        with pytest.raises(KeyboardInterrupt):
            write()
    monkeypatch.undo()
    query = np.ones((1, SIZE), np.float32)
    for _ in range(2):
        assert [(video.video, video.best) for video in index.search(query, 3)[0]] == [
            ("a", SIZE),
            ("b", SIZE),
        ]
        assert index.videos() == ["a", "b"]
        monkeypatch.setattr(qdrant, "_LEFT_NS", 0)
        index.compact()
    assert sum(index._client.counts().values()) == 4
    index.verify()


def test_a_lost_window_is_damage(index):
    index.add(some(["a"]))
    client = index._client._client
    client.delete(index._client.windows, [client.scroll(index._client.windows)[0][0].id])
    with pytest.raises(UserError, match="damaged, windows of video 'a'"):
        index.verify()


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"start_s": -5.0}, r"damaged, holds the window \[-5\.0, 1\.0\]"),
        ({"end_s": "x"}, "holds points that are no windows"),
        ({}, "holds points that are no windows"),
    ],
)
def test_points_that_are_no_windows_are_one_line(index, changed, said):
    index.add(some(["a"]))
    client, name = index._client._client, index._client.windows
    first = min(client.scroll(name)[0], key=lambda point: point.payload["nth"])
    kept = {**first.payload, **changed} if changed else {"number": first.payload["number"]}
    client.overwrite_payload(name, kept, points=[first.id])
    with pytest.raises(UserError, match=said):
        index.search(np.ones((1, SIZE), np.float32), 1)


@pytest.mark.parametrize(
    ("content", "headers", "said"),
    [
        ([b" " * 400] * 3, {}, "an answer of more than 1,000 bytes"),
        ([b" "] * 9, {"Content-Encoding": "gzip"}, "an answer packed by 'gzip'"),
        ([b" "] * 9, {}, "an answer that takes more than -1 s"),
    ],
)
def test_answers_are_bounded(content, headers, said):
    import httpx

    answer = httpx.MockTransport(lambda _: httpx.Response(200, content=iter(content), headers=headers))
    hooks = {"response": [bounded(-1 if "takes" in said else 9, 1000)]}
    with httpx.Client(transport=answer, event_hooks=hooks) as client, pytest.raises(UserError, match=said):
        client.get("http://localhost/")


def test_a_server_that_is_not_there_is_one_line(monkeypatch):
    """At once where nobody listens, within the time limit where somebody does and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        closed = socket.create_server(("127.0.0.1", 0))
        port = closed.getsockname()[1]
        closed.close()
        monkeypatch.setattr(qdrant_connection, "SECONDS", 1)
        monkeypatch.setenv(qdrant_connection.KEY, "very-secret")
        for at in (port, silent.getsockname()[1]):
            monkeypatch.setenv(qdrant_connection.SERVER, f"http://localhost:{at}")
            begun = time.monotonic()
            with pytest.raises(UserError, match=f"localhost:{at}: Qdrant does not answer") as error:
                QdrantIndex.open(f"http://localhost:{at}", size=SIZE)
            assert time.monotonic() - begun < 10
            assert "\n" not in str(error.value)
            assert "secret" not in str(error.value)


@pytest.mark.parametrize(
    "place", ["https://user:secret@host:6333", "https://host?key=secret", "host:6333", "ftp://h"]
)
def test_addresses_are_checked_and_keys_in_them_refused(place):
    with pytest.raises(UserError, match="address") as error:
        QdrantIndex.open(place, size=SIZE)
    assert "secret" not in str(error.value)


def test_the_key_of_the_environment_is_given_to_the_server_that_it_is_for(monkeypatch):
    given = {}
    fake = types.SimpleNamespace(QdrantClient=lambda **settings: given.update(settings))
    monkeypatch.setitem(sys.modules, "qdrant_client", fake)
    monkeypatch.setenv(qdrant_connection.KEY, "very-secret")
    for other in (
        "",
        "https://host",
        "https://elsewhere:6333",
    ):  # an index from elsewhere may name any server
        monkeypatch.setenv(qdrant_connection.SERVER, other)
        with pytest.raises(UserError, match="QDRANT_URL=https://host:6333 if it is"):
            qdrant_collections.Collections("https://host:6333", "vmr")
    assert not given
    monkeypatch.setenv(qdrant_connection.SERVER, "https://host:6333/")
    qdrant_collections.Collections("https://host:6333", "vmr")
    assert (given["url"], given["api_key"], given["timeout"]) == ("https://host:6333", "very-secret", 60)


def test_a_foreign_collection_and_a_missing_client_are_named(tmp_path, monkeypatch):
    client = qdrant_client.QdrantClient(path=str(tmp_path / "index"))
    client.create_collection("vmr-windows", vectors_config={})
    client.close()
    with pytest.raises(UserError, match="not an index"):
        QdrantIndex.open(tmp_path / "index", size=SIZE)
    with pytest.raises(UserError, match="holds a collection 'vmr-windows' already"):
        QdrantIndex.create(tmp_path / "index", size=SIZE)
    monkeypatch.setitem(sys.modules, "qdrant_client", None)
    with pytest.raises(UserError, match=r"pip install 'vmr-search\[qdrant\]'"):
        QdrantIndex.create(tmp_path / "other", size=SIZE)
