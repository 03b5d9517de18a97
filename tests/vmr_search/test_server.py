"""The server: what it finds and shows, and what it refuses."""

import asyncio
import threading
import time

import numpy as np
import pytest
from starlette.testclient import TestClient

from search_toy import CAPTIONS, WordRetriever, corpus, videos
from videos import pictures, write_video
from vmr_common.errors import UserError
from vmr_common.version import __version__
from vmr_search import Search
from vmr_search.server.app import create_app
from vmr_search.server.errors import Refused
from vmr_search.server.guard import LOCAL
from vmr_search.server.limits import Gate
from vmr_search.server.pictures import Pictures
from vmr_search.server.videos import play

pytestmark = pytest.mark.e2e  # real decoders, engines or processes

HOSTILE = """<img src=x onerror="alert('1')"> ü&#?%"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Videos of the corpus: one in a folder, one under a hostile name, one that is no video; a secret beside them."""
    root = tmp_path_factory.mktemp("serve")
    (root / "videos/inside").mkdir(parents=True)
    write_video(root / "videos/kitchen.mp4", pictures(60), rate=10)
    write_video(root / "videos/inside/street.mp4", pictures(80), rate=10)
    (root / "videos" / f"{HOSTILE}.mp4").write_bytes((root / "videos/kitchen.mp4").read_bytes())
    (root / "videos/broken.mp4").write_bytes(b"no video at all" * 50)
    write_video(root / "secret.mp4", pictures(10), rate=10)
    (root / "videos/leads-out.mp4").symlink_to(root / "secret.mp4")
    (root / "videos/linked.mp4").symlink_to(root / "videos/kitchen.mp4")
    (root / "videos/pipe.mp4").mkdir()
    return root / "videos"


@pytest.fixture(scope="module")
def search(folder):
    index = corpus()
    index.add(videos({HOSTILE: ["red door"], "broken": ["dog grows"], "leads-out": ["green grows"]}))
    paths = [*folder.glob("*.mp4"), *folder.glob("inside/*.mp4")]
    return Search(index, WordRetriever(), files={path.stem: path for path in paths})


@pytest.fixture(scope="module")
def client(search, folder):
    with TestClient(
        create_app(search, roots=[folder], examples=["a <b>"]), raise_server_exceptions=False
    ) as made:
        yield made


def test_a_search_gives_pages_of_moments(client):
    whole = client.get("/search", params={"q": "red circle spins", "limit": 5}).json()
    first = whole["hits"][0]
    assert (first["video"], first["start"], first["end"], first["rank"]) == ("street", 2.0, 4.0, 1)
    assert (whole["videos"], whole["more"], whole["offset"]) == (len(CAPTIONS) + 3, True, 0)
    parts = [
        client.get("/search", params={"q": "red circle spins", "offset": n, "limit": 1}) for n in range(5)
    ]
    assert [part.json()["hits"][0] for part in parts] == whole["hits"]
    last = client.get("/search", params={"q": "red circle spins", "offset": 9, "limit": 50}).json()
    assert not last["more"]
    assert client.get(first["strip_url"]).headers["content-type"] == "image/jpeg"


def test_one_moment_of_each_video_where_it_is_asked_for(client):
    found = client.get("/search", params={"q": "red circle spins", "per_video": 1}).json()["hits"]
    assert len(found) == len({hit["video"] for hit in found}) > 1


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({"video": ["kitchen", "garden"]}, {"kitchen", "garden"}),
        ({"folder": "inside"}, {"street"}),
        ({"folder": "inside", "video": "kitchen"}, set()),
        ({"after": 4.5, "before": 5.5}, {"kitchen", "street"}),
        ({"longest": 1}, set()),
        ({"least_score": 1.6}, {"street"}),
    ],
)
def test_filters_of_a_search(client, filters, expected):
    found = client.get("/search", params={"q": "red circle spins"} | filters).json()
    assert {hit["video"] for hit in found["hits"]} == expected


@pytest.mark.parametrize(
    ("address", "status", "code", "field"),
    [
        ("/search", 422, "invalid", "q"),
        ("/search?q=", 422, "invalid", "q"),
        ("/search?q=%20", 422, "invalid", "q"),
        ("/search?q=unknown", 422, "unsearchable", "q"),
        ("/search?q=" + "red+" * 400, 422, "invalid", "q"),
        ("/search?q=" + "red+" * 4000, 414, "too_long", None),
        ("/search?q=red&limit=101", 422, "invalid", "limit"),
        ("/search?q=red&offset=-1", 422, "invalid", "offset"),
        ("/search?q=red&after=nan", 422, "invalid", "after"),
        ("/search?q=red&longest=1&shortest=2", 422, "invalid", "shortest"),
        ("/search?q=red&after=5&before=1", 422, "invalid", "after"),
        ("/search?q=red&video=none", 422, "no_such_video", "video"),
        ("/search?q=red&folder=..", 422, "no_such_folder", "folder"),
        ("/search?q=red&wrong=1", 422, "invalid", "wrong"),
        ("/nothing", 404, "not_found", None),
        ("/static/..%2fapp.py", 404, "not_found", None),
        ("/video/garden", 404, "no_such_video", "video"),
        ("/thumb/kitchen?t=-1", 422, "invalid", "t"),
        ("/thumb/kitchen?t=1e23", 422, "invalid", "t"),
        ("/thumb/kitchen?height=9999", 422, "invalid", "height"),
        ("/thumb/broken", 422, "invalid", None),
        ("/strip/kitchen?start=2&end=1", 422, "invalid", "end"),
        ("/clip/kitchen?start=0&end=601", 422, "invalid", "end"),
        ("/clip/kitchen?start=50&end=51", 422, "invalid", "start"),
        ("/clip/broken?start=1&end=2", 422, "invalid", None),
        ("/markers/kitchen?start=1&end=2&kind=exe", 422, "invalid", "kind"),
        ("/markers?q=blue&video=garden&kind=csv", 404, "nothing_found", None),
    ],
)
def test_every_error_is_structured_and_tells_no_place(client, folder, address, status, code, field):
    answer = client.get(address)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["field"]) == (status, code, field), error
    assert str(folder.parent) not in answer.text
    assert answer.headers["x-content-type-options"] == "nosniff"


OUTSIDE = (
    "%2e%2e",
    "../secret",
    "%2e%2e%2fsecret",
    "..%2fsecret.mp4",
    "/etc/passwd",
    "%2fetc%2fpasswd",
    "%00",
)
OUTSIDE += (
    "kitchen%00",
    "kitchen/../../secret",
    "..\\secret",
    "C:%5c",
    "%ff%fe",
    "~",
    "secret",
    "kitchen.mp4",
)
OUTSIDE += ("leads-out", "pipe")  # a link and a folder


@pytest.mark.parametrize("video", OUTSIDE)
@pytest.mark.parametrize("part", ["video/{}", "thumb/{}?t=0.5", "clip/{}?start=0&end=1"])
def test_no_path_leaves_the_folder(client, video, part):
    answer = client.get(f"/{part.format(video)}")
    assert answer.status_code == 404, answer.content
    assert "error" in answer.json()


def test_a_file_that_became_a_link_is_not_served(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "out.mp4").write_bytes(b"secret")
    file = tmp_path / "in/dog.mp4"
    file.write_bytes(b"shown")
    app = create_app(Search(corpus(), WordRetriever(), files={"dog": file}), roots=[tmp_path / "in"])
    client = TestClient(app)
    assert client.get("/video/dog").content == b"shown"
    file.unlink()
    assert client.get("/video/dog").json()["error"]["code"] == "file_gone"
    file.symlink_to(tmp_path / "out.mp4")
    assert client.get("/video/dog").status_code == 404


def test_no_error_tells_where_a_folder_is_that_is_reached_by_a_link(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "real/dog.mp4").write_bytes(b"no video")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    search = Search(corpus(), WordRetriever(), files={"dog": tmp_path / "link/dog.mp4"})
    answer = TestClient(create_app(search, roots=[tmp_path / "link"])).get("/thumb/dog")
    assert answer.json()["error"]["message"].startswith("dog.mp4: not a video")


def test_a_file_that_is_cut_short_while_it_plays_is_a_line_in_the_log(tmp_path, caplog):
    file, sent = tmp_path / "dog.mp4", []
    file.write_bytes(b"x" * 100)

    async def send(message):
        file.write_bytes(b"x")
        sent.append(message)

    scope = {"type": "http", "method": "GET", "headers": []}
    asyncio.run(play(file, None)(scope, lambda: asyncio.sleep(9), send))
    assert "dog.mp4: was cut short" in caplog.text
    assert [message["type"] for message in sent] == ["http.response.start"]  # no end


def test_hostile_names_are_served_under_their_address(client):
    found = client.get("/search", params={"q": "red door", "video": HOSTILE}).json()["hits"][0]
    assert (found["video"], found["title"]) == (HOSTILE, f"{HOSTILE}.mp4")
    assert client.get(found["video_url"]).headers["content-type"] == "video/mp4"
    answer = client.get(found["clip_url"])
    assert answer.headers["content-disposition"].startswith("attachment; filename*=utf-8''%3Cimg")
    assert client.get("/video/linked").status_code == 200  # a link inside the folder


@pytest.mark.parametrize(
    ("wanted", "status", "part"),
    [
        (None, 200, slice(None)),
        ("bytes=0-9", 206, slice(0, 10)),
        ("bytes=10-", 206, slice(10, None)),
        ("bytes=-7", 206, slice(-7, None)),
        ("bytes=-99999999", 206, slice(None)),
        ("bytes=5-99999999", 206, slice(5, None)),
        ("bytes=99999999-", 416, None),
        ("bytes=9-5", 416, None),
        ("bytes=-0", 416, None),
        ("bytes=a-b", 416, None),
        ("lines=1-2", 416, None),
        ("bytes=" + "9" * 400 + "-", 416, None),
        ("bytes=" + "9" * 40 + "-", 416, None),
    ],
)
def test_ranges_of_a_video(client, folder, wanted, status, part):
    data = (folder / "kitchen.mp4").read_bytes()
    headers = {} if wanted is None else {"Range": wanted}
    for method in ("GET", "HEAD"):
        answer = client.request(method, "/video/kitchen", headers=headers)
        assert answer.status_code == status
        if part is None:
            assert answer.headers["content-range"] == f"bytes */{len(data)}"
        else:
            assert int(answer.headers["content-length"]) == len(data[part])
            assert answer.content == (data[part] if method == "GET" else b"")
            assert answer.headers["accept-ranges"] == "bytes"


def test_a_range_of_a_file_that_changed_is_the_whole(client):
    now = client.head("/video/kitchen").headers["etag"]
    for tag, status in ((now, 206), ('"other"', 200)):
        assert (
            client.get("/video/kitchen", headers={"Range": "bytes=0-3", "If-Range": tag}).status_code
            == status
        )


def test_clips_and_markers_are_what_was_asked_for(client, tmp_path):
    from vmr_video.media import probe

    for exact, least, most in (("1", 1.0, 1.2), ("0", 1.0, 2.6)):
        answer = client.get("/clip/kitchen", params={"start": 1.2, "end": 2.3, "exact": exact})
        (tmp_path / "clip.mp4").write_bytes(answer.content)
        assert least <= probe(tmp_path / "clip.mp4").duration <= most
    answer = client.get("/markers/kitchen", params={"start": 1, "end": 2, "kind": "csv", "q": "=red"})
    assert answer.text.splitlines()[1].startswith("kitchen.mp4,'=red,1,1.000,2.000")
    answer = client.get("/markers", params={"q": "red", "kind": "edl"})
    assert answer.text.count("FROM CLIP NAME") == 8  # of files that are there and can be read
    assert client.get("/markers", params={"q": "red", "kind": "fcpxml"}).text.startswith("<?xml")


def test_what_is_made_for_a_request_is_deleted(search, folder, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with TestClient(create_app(search, roots=[folder])) as client:
        for address in ("/clip/kitchen?start=1&end=2", "/clip/broken?start=1&end=2", "/markers?q=red"):
            client.get(address)
        (work,) = tmp_path.iterdir()
        assert list(work.iterdir()) == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "localhost:8000"}, 200),
        ({"Host": "127.0.0.1"}, 200),
        ({"Host": "[::1]:8000"}, 200),
        ({"Host": "attacker.example"}, 403),
        ({"Host": "localhost.attacker.example:8000"}, 403),
        ({"Host": "localhost", "Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}, 403),
        ({"Host": "localhost", "Sec-Fetch-Site": "same-origin"}, 200),
    ],
)
def test_foreign_sites_reach_nothing(search, headers, status):
    client = TestClient(create_app(search, hosts=LOCAL))
    answer = client.get("/health", headers=headers)
    assert answer.status_code == status
    assert status == 200 or answer.json()["error"]["code"].startswith("foreign")


def test_the_pages_hold_no_script_of_their_own_and_load_nothing_from_elsewhere(client):
    for address in ("/", "/docs"):
        answer = client.get(address)
        assert "script-src 'self'" in answer.headers["content-security-policy"]
        assert "http://" not in answer.text
        assert "https://" not in answer.text
        assert "style=" not in answer.text
        assert "<script>" not in answer.text
    assert "a &lt;b&gt;" in client.get("/").text
    described = client.get("/openapi.json").json()["paths"]
    assert {"/search", "/video/{video}", "/health"} <= set(described)
    assert {"q", "offset", "least_score"} <= {
        one["name"] for one in described["/search"]["get"]["parameters"]
    }
    assert client.post("/search").json()["error"]["code"] == "method_not_allowed"
    assert client.get("/health").json() == {
        "status": "ready",
        "version": __version__,
        "videos": 6,
        "files": 7,
    }


def test_a_fault_is_an_error_without_its_text(folder):
    class Broken(WordRetriever):
        def sentences(self, texts):
            raise RuntimeError("secret")

    client = TestClient(create_app(Search(corpus(), Broken())), raise_server_exceptions=False)
    answer = client.get("/search?q=red")
    assert (answer.status_code, answer.json()["error"]["code"]) == (500, "internal")
    assert "secret" not in answer.text


def test_what_is_added_is_found_and_what_breaks_is_told_without_its_place(monkeypatch):
    index = corpus()
    monkeypatch.setattr("vmr_search.server.finding.FRESH_S", -1.0)  # at each search
    with TestClient(create_app(Search(index, WordRetriever()))) as client:
        index.refresh = lambda: index.replace(videos({"new": ["blue"]}))
        assert client.get("/search?q=blue").json()["videos"] == 4

        def damaged(*_, **__):
            raise UserError("/secret/x: damaged")

        index.search = damaged
        answer = client.get("/search?q=green")
        assert (answer.status_code, answer.json()["error"]["code"]) == (500, "unreadable")
        assert "secret" not in answer.text


def test_a_gate_lets_so_many_run_and_the_others_wait_for_a_while():
    running, most = 0, 0
    lock = threading.Lock()

    def work(seconds):
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(seconds)
        with lock:
            running -= 1
        return seconds

    async def all_of(gate, count, seconds):
        return await asyncio.gather(*(gate.run(work, seconds) for _ in range(count)), return_exceptions=True)

    assert asyncio.run(all_of(Gate(2, 5.0, "it"), 20, 0.002)) == [0.002] * 20
    assert most == 2
    found = asyncio.run(all_of(Gate(1, 0.05, "it"), 3, 0.2))
    refused = [one for one in found if isinstance(one, Refused)]
    assert [(one.status, one.headers) for one in refused] == [(503, {"Retry-After": "2"})] * 2


def test_pictures_are_kept_within_their_room(folder, monkeypatch):
    made = []
    monkeypatch.setattr(
        "vmr_search.server.pictures._grabbed", lambda path, times, height: made.append(times) or [b"x" * 40]
    )
    pictures = Pictures(room=100)
    for time_s in (1.0, 2.0, 1.0, 3.0, 2.0):
        pictures.thumb(folder / "kitchen.mp4", time_s, 96)
    assert made == [[1.0], [2.0], [3.0], [2.0]]  # 2 was used longest ago when 3 came


def test_without_pyav_the_moments_still_show(client, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "vmr_video.answers.strip", None)
    found = client.get("/search?q=dog").json()["hits"]
    assert found
    answer = client.get("/thumb/kitchen?t=0.123")
    assert (answer.status_code, answer.json()["error"]["code"]) == (501, "not_available")


def test_many_requests_at_once_are_all_answered_and_share_scans(search, folder, monkeypatch):
    app = create_app(search, roots=[folder], searches=2)
    scans = []
    many = Search.many
    monkeypatch.setattr(
        Search, "many", lambda self, texts, *k, **how: scans.append(texts) or many(self, texts, *k, **how)
    )
    words = np.random.default_rng(0).choice(["red", "dog", "door", "green", "unknown"], (60, 2))
    texts = list(dict.fromkeys(" ".join(two) for two in words))

    async def answers():
        import httpx

        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            return await asyncio.gather(*(client.get("/search", params={"q": text}) for text in texts))

    found = dict(zip(texts, asyncio.run(answers()), strict=True))
    assert (
        found.pop("unknown unknown").json()["error"]["code"] == "unsearchable"
    )  # alone, and not those beside it
    assert {answer.status_code for answer in found.values()} == {200}
    assert sum(map(len, scans)) == len(found)
    assert len(scans) < len(found)
    for text, answer in found.items():
        hits = answer.json()["hits"]
        assert [hit["score"] for hit in hits] == pytest.approx(
            [hit.score for hit in search(text, 20)], abs=1e-5
        )
