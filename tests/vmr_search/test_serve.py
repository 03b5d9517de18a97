"""``vmr-search serve``: where it listens, and how it ends."""

import asyncio
import functools
import json
import signal
import socket
import subprocess
import sys
import time
import urllib.request

import pytest
import uvicorn
from uvicorn.server import ServerState

from folders import ROOT
from search_toy import WordRetriever, corpus
from vmr_search import Search
from vmr_search.cli.main import main
from vmr_search.cli.serve import roots_of
from vmr_search.server import patience

pytestmark = pytest.mark.e2e  # real decoders, engines or processes

PROGRAM = """
import signal, sys, time
from pathlib import Path
signal.signal(signal.SIGINT, signal.default_int_handler)  # a test that runs in the background inherits none
sys.path.insert(0, {tests!r})
from search_toy import WordRetriever, corpus
from vmr_common.cli.entrypoint import command
from vmr_common.errors import UserError
from vmr_search import Search
from vmr_search.server import clips
from vmr_search.server.running import serve

def clip(path, start, end, exact, work, stop):
    (path.parent / "begun").touch()
    while not stop():
        time.sleep(0.02)
    raise UserError("stopped")

clips.clip = clip  # takes for ever
root = Path({root!r})
search = Search(corpus(), WordRetriever(), files={{"street": root / "street.mp4"}})
sys.exit(command(lambda words: serve(search, [root], port=0))())
"""


@pytest.fixture
def opened(monkeypatch):
    monkeypatch.setattr("vmr_search.opening.open", lambda *_, **__: Search(corpus(), WordRetriever()))


def test_it_answers_until_ctrl_c_also_while_a_clip_is_cut(tmp_path):
    (tmp_path / "street.mp4").touch()
    words = [sys.executable, "-c", PROGRAM.format(tests=str(ROOT / "tests"), root=str(tmp_path))]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        line = process.stdout.readline()
        address = line.split()[0]
        assert line == f"{address}  (Ctrl-C ends it)\n"
        with urllib.request.urlopen(f"{address}search?q=red", timeout=30) as answer:
            assert json.load(answer)["videos"] == 3
        with socket.create_connection(("127.0.0.1", int(address.rstrip("/").rpartition(":")[2]))) as client:
            client.send(b"GET /clip/street?start=0&end=5 HTTP/1.1\r\nHost: localhost\r\n\r\n")
            while not (tmp_path / "begun").exists():
                time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        out, error = process.communicate(timeout=30)
    assert (process.returncode, out, error) == (130, "", "interrupted\n")


def test_where_it_cannot_listen_is_said_in_a_line(answer, opened):
    with socket.create_server(("127.0.0.1", 0)) as door:
        port = door.getsockname()[1]
        status, out, error = answer(main, "serve", "index", "--port", port)
    said = f"error: --port {port}: is taken on 127.0.0.1; choose another, or 0 for any\n"
    assert (status, out, error) == (2, "", said)
    status, _, error = answer(main, "serve", "index", "--host", "203.0.113.5", "--port", 0)
    assert (status, error.count("\n"), "--host 203.0.113.5" in error) == (2, 1, True)
    for host, said in (("", "expected an address"), ("no host", "cannot listen there (Name")):
        status, _, error = answer(main, "serve", "index", "--host", host, "--port", 0)
        assert (status, said in error) == (2, True), error
    status, _, error = answer(main, "serve", "index", "--port", 70000)
    assert (status, "--port" in error) == (2, True)


def test_others_are_told_that_they_may_watch(answer, opened, monkeypatch):
    monkeypatch.setattr("uvicorn.Server.run", lambda self, sockets: None)
    status, out, _ = answer(main, "serve", "index", "--host", "0.0.0.0", "--port", 0)
    assert (status, out.splitlines()[0]) == (0, "Everybody on the network can search and watch these videos.")


def test_files_that_were_named_are_served_from_their_folder(tmp_path):
    assert roots_of([tmp_path, tmp_path / "a.mp4"]) == [tmp_path, tmp_path]


def test_a_request_that_does_not_come_ends_its_connection(monkeypatch):
    """And one that is slow to be answered, or is the second of its connection, does not."""
    monkeypatch.setattr(patience, "REQUEST_S", 0.2)

    async def app(scope, receive, send):
        await asyncio.sleep(0.5)
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})

    async def said():
        config = uvicorn.Config(app, log_config=None)
        config.load()
        make = functools.partial(patience.Patient, config, ServerState(), {})
        server = await asyncio.get_running_loop().create_server(make, "127.0.0.1", 0)
        address = server.sockets[0].getsockname()
        for begun in (b"", b"GET / HTTP/1.1\r\nHo"):
            reader, writer = await asyncio.open_connection(*address)
            writer.write(begun)
            assert await asyncio.wait_for(reader.read(), 5) == b""
        reader, writer = await asyncio.open_connection(*address)
        for _ in range(2):
            writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            await asyncio.wait_for(reader.readuntil(b"ok"), 5)
        writer.write(b"GET")
        assert await asyncio.wait_for(reader.read(), 5) == b""
        server.close()

    asyncio.run(said())
