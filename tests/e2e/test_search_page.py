"""The search page in a browser: type, look, play, trim, save, and the link that opens it again."""

import contextlib
import http.client
import socket
import threading
from urllib.parse import urlencode

import pytest
import uvicorn

from browser import opened
from search_toy import MemoryIndex, WordRetriever, videos
from videos import pictures, write_video
from vmr_search import Search
from vmr_search.server.app import create_app
from vmr_search.server.guard import LOCAL

HOSTILE = """<img src=x onerror="document.title='taken'">'%2e&ü#?"""
CAPTIONS = {
    "kitchen": ("red circle", "green square spins", "dog door"),
    "mpeg": ("blue door", "blue circle grows"),
    HOSTILE: ("green door spins", "dog grows"),
    **{f"more-{number}": ("red square", "red door", "red dog") for number in range(12)},
}
PLAYER = """(() => { const v = document.querySelector('#video');
  return [v.currentTime, v.paused, v.videoWidth, document.querySelector('#now').textContent]; })()"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("page")
    write_video(root / "kitchen.mp4", pictures(120), rate=20, sound=6.0)
    (root / f"{HOSTILE}.mp4").write_bytes((root / "kitchen.mp4").read_bytes())
    write_video(root / "mpeg.avi", pictures(80), rate=20, codec="mpeg4")  # plays in no browser
    return root


@contextlib.contextmanager
def served(app):
    """The address of a running server."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = uvicorn.Server(
            uvicorn.Config(app, log_level="error", http="h11", timeout_graceful_shutdown=1)
        )
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}/"
        finally:
            server.should_exit = True
            thread.join(30)


@pytest.fixture(scope="module")
def address(folder):
    index = MemoryIndex()
    index.add(videos(CAPTIONS))
    files = {path.stem: path for path in folder.iterdir()}
    search = Search(index, WordRetriever(), files=files)
    examples = ["blue circle grows", HOSTILE]
    with served(create_app(search, roots=[folder], hosts=LOCAL, examples=examples)) as made:
        yield made


@pytest.fixture(scope="module")
def tab(address, tmp_path_factory):
    with opened(address, tmp_path_factory.mktemp("home")) as made:
        made.call("Emulation.setFocusEmulationEnabled", enabled=True)
        yield made


def count(tab) -> int:
    return tab.value("document.querySelectorAll('.hit').length")


def test_a_sentence_is_typed_and_its_moment_plays(tab, address):
    tab.go(address)
    tab.wait("document.activeElement.id === 'q'")
    tab.type("green square spins")
    tab.press("Enter")
    tab.wait("document.querySelectorAll('.hit').length >= 4")
    assert tab.value("document.querySelector('.hit .title').textContent") == "kitchen.mp4"
    assert "among 15 videos" in tab.wait("document.querySelector('#status').textContent")
    tab.wait("document.querySelector('.film img').naturalWidth > 300")
    assert tab.value("document.querySelector('.hit .times').textContent") == "0:02.0 \N{EN DASH} 0:04.0"
    tab.click(".hit")
    tab.wait(f"!{PLAYER}[1]")
    assert 2.0 <= tab.value(PLAYER)[0] < 4
    tab.wait(f"{PLAYER}[1]")
    time, _, width, said = tab.value(PLAYER)
    assert (time, width, said) == (
        pytest.approx(4.0, abs=0.15),
        64,
        "Stopped at the end of the moment, 0:04.0.",
    )
    assert tab.value("location.search") == "?q=green+square+spins&in=kitchen&at=2.00-4.00"


def test_the_keyboard_does_it_all(tab, address):
    tab.go(f"{address}?q=red+circle")
    tab.wait("document.querySelectorAll('.hit').length === 24")
    tab.value("document.activeElement.blur()")
    tab.press("/")
    assert tab.value("document.activeElement.id") == "q"
    tab.press("ArrowDown")
    tab.press("ArrowDown")
    tab.press("ArrowUp")
    assert tab.value("document.activeElement === document.querySelector('.hit')")
    tab.press("Enter")
    tab.wait(f"!{PLAYER}[1]")
    tab.press(" ")
    tab.wait(f"{PLAYER}[1]")
    assert 0 < tab.value(PLAYER)[0] < 2
    tab.press(" ")
    tab.wait(f"!{PLAYER}[1]")
    tab.press("Escape")
    assert tab.value("[document.querySelector('#player').hidden, location.search]") == [True, "?q=red+circle"]
    for _ in range(24):
        tab.press("ArrowDown")
    tab.wait("document.querySelectorAll('.hit').length > 24")  # further moments come as the end is near
    assert tab.wait("document.querySelector('#more').hidden")
    assert count(tab) == sum(map(len, CAPTIONS.values()))


def test_hostile_names_and_sentences_stay_text(tab, address):
    tab.go(address)
    tab.click(".example", 1)
    assert tab.wait("document.querySelector('#error').textContent")
    assert "The sentence '<img src=x" in tab.value("document.querySelector('#error').textContent")
    assert tab.value("document.querySelectorAll('#error img, #hits img').length") == 0
    tab.go(f"{address}?{urlencode({'q': 'green door spins', 'video': HOSTILE})}")
    tab.wait("document.querySelectorAll('.hit').length === 2")
    assert tab.value("document.querySelector('.hit .title').textContent") == f"{HOSTILE}.mp4"
    tab.click(".hit")
    tab.wait(f"{PLAYER}[2] > 0")
    assert tab.value("document.querySelector('h2').textContent") == f"{HOSTILE}.mp4"
    assert "taken" not in tab.value("document.title")


def test_a_link_opens_the_moment_again_and_going_back_leaves_it(tab, address):
    tab.go(f"{address}?q=dog+door&after=3&in=kitchen&at=4.10-5.20")  # trimmed: not one of those found
    tab.wait(f"{PLAYER}[2] > 0 && {PLAYER}[0] > 4")
    assert tab.value(PLAYER)[:2] == [pytest.approx(4.12, abs=0.01), True]
    state = "[from, to].map((one) => Number(one.value))"
    assert tab.value(f"((from, to) => {state})(...document.querySelectorAll('#from, #to'))") == [4.1, 5.2]
    assert tab.value("document.querySelector('[name=after]').value") == "3"
    tab.value("document.querySelector('#q').value = 'blue'; document.querySelector('#form').requestSubmit()")
    tab.wait("location.search === '?q=blue&after=3' && document.querySelector('#player').hidden")
    tab.value("history.back()")
    tab.wait("document.querySelector('#q').value === 'dog door' && !document.querySelector('#player').hidden")


def test_a_moment_is_trimmed_and_saved(tab, address, tmp_path):
    tab.downloads(tmp_path)
    tab.go(f"{address}?q=dog+door&in=kitchen&at=4.00-6.00")
    tab.wait(f"{PLAYER}[2] > 0")
    moved = (
        "(e => { e.value = 4.5; e.dispatchEvent(new Event('input')); e.dispatchEvent(new Event('change')); })"
    )
    tab.value(f"{moved}(document.querySelector('#from'))")
    tab.wait("location.search.endsWith('at=4.50-6.00')")
    tab.click("#save")
    tab.wait(f"{PLAYER}[3] === 'Saved kitchen-4.50-6.00.mp4.'")
    tab.click("#marker")
    tab.wait(f"{PLAYER}[3] === 'Saved kitchen-4.50-6.00.edl.'")
    from vmr_video.media import probe

    while len(found := {path.name: path for path in tmp_path.iterdir() if path.suffix != ".crdownload"}) < 2:
        tab.wait("true")
    assert probe(found["kitchen-4.50-6.00.mp4"]).duration == pytest.approx(1.5, abs=0.1)
    assert "00:00:04:10 00:00:06:00" in found["kitchen-4.50-6.00.edl"].read_text()


def test_a_file_that_browsers_do_not_play_is_shown_as_a_clip(tab, address):
    tab.go(f"{address}?q=blue+circle+grows")
    tab.wait("document.querySelectorAll('.hit').length > 0")
    tab.click(".hit")
    tab.wait(f"{PLAYER}[2] > 0 && {PLAYER}[1] && {PLAYER}[3].startsWith('Stopped')")
    assert tab.value(PLAYER)[0] == pytest.approx(3.0, abs=0.15)  # of the clip, which begins a second earlier


def test_paths_as_they_are_lead_nowhere(address):
    host = address.removeprefix("http://").rstrip("/")
    for path in (
        "/video/../../secret",
        "/video//etc/passwd",
        "/../etc/passwd",
        "/static/../page.py",
        "//etc",
        "/video/%00",
    ):
        connection = http.client.HTTPConnection(host, timeout=10)
        connection.request("GET", path)
        assert connection.getresponse().status == 404, path
        connection.close()
