"""The page of answers: complete in itself, whatever sentences and file names hold; what it carries of a video."""

import base64
import re
from html.parser import HTMLParser

import numpy as np
import pytest

import vmr_video.answers.playing as playing
from videos import pictures, write_video
from vmr_common.errors import UserError
from vmr_video.answers import Answer, write_page
from vmr_video.media import probe

pytestmark = pytest.mark.e2e  # real decoders, engines or processes

HOSTILE = '</script><script>alert(1)</script>" onload="alert(2)" \x1b[2J\ud800 <b>&amp;'


class Tags(HTMLParser):
    """All tags with their attributes, and the text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data

    def of(self, name: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.tags if tag == name]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("somewhere")
    write_video(path / 'plain "<i>.mp4', pictures(50), rate=10, sound=5.0)
    write_video(path / "lossless.mkv", pictures(50), rate=10, codec="ffv1", pixels="bgr0")
    return path


def answer(path, moments=((1.0, 2.0), (3.0, 4.5)), **more):
    given = {"text": "a square jumps", "moments": moments, "scores": np.linspace(1, 0, len(moments))}
    return Answer(**{"video": probe(path)} | given | more)


def page_of(path, answers, title="Found"):
    write_page(path, answers, title=title)
    return path.read_text(encoding="utf-8")


def test_the_page_is_complete_and_nothing_breaks_out(folder, tmp_path):
    movie = folder / 'plain "<i>.mp4'
    curve = (np.linspace(0, 5, 50), np.sin(np.arange(50)))
    found = [
        answer(movie, curve=curve),
        answer(movie, text=HOSTILE, note=HOSTILE),
        answer(folder / "lossless.mkv", moments=()),
    ]
    page = page_of(tmp_path / "page.html", found, title=HOSTILE)
    assert page == page_of(tmp_path / "again.html", found, title=HOSTILE)
    tags = Tags(page)
    assert str(folder) not in page
    assert len(tags.of("script")) == 1
    assert not tags.of("b") + tags.of("link") + tags.of("iframe")
    assert not [name for _, attributes in tags.tags for name in attributes if name.startswith("on")]
    sources = [
        attributes[name] for _, attributes in tags.tags for name in attributes if name in ("src", "poster")
    ]
    assert all(source.startswith("data:") for source in sources)
    assert tags.text.count("</script><script>alert(1)</script>") == 4  # title twice, sentence, note
    assert "\\u001b[2J\\ud800" in tags.text
    assert len(tags.of("section")) == 2
    first, second = tags.of("video")
    assert base64.b64decode(first["src"].split(",")[1]) == movie.read_bytes()  # as it is
    assert second["src"].startswith("data:video/mp4")  # encoded for browsers
    starts = [float(button["data-start"]) for button in tags.of("button")]
    assert starts == [1.0, 3.0, 1.0, 3.0]
    assert len([one for one in tags.of("img") if one["src"].startswith("data:image/jpeg")]) == 16
    assert "No moment was found." in tags.text


def test_the_policy_allows_the_one_script_alone(folder, tmp_path):
    import hashlib

    page = page_of(tmp_path / "page.html", [answer(folder / "lossless.mkv")])
    script = re.search("<script>(.*)</script>", page, re.DOTALL)[1]
    hashed = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert "default-src 'none'; img-src data:; media-src data: blob:; style-src 'unsafe-inline'; " in page
    assert f"script-src 'sha256-{hashed}'" in page


def test_of_a_long_video_the_page_holds_clips(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(playing, "PREVIEW_S", 4.0)
    monkeypatch.setattr(playing, "AROUND_S", 0.5)
    found = answer(folder / "lossless.mkv", moments=((1.0, 2.0), (1.5, 2.2), (4.0, 4.4), (2.9, 4.0)))
    tags = Tags(page_of(tmp_path / "page.html", [found]))
    clips = [(float(one["data-start"]), float(one["data-end"])) for one in tags.of("video")]
    assert clips == [(0.5, 2.7), (3.5, 4.9)]
    assert ["disabled" in one for one in tags.of("button")] == [False, False, False, True]
    assert "too long for this page" in tags.text


def test_where_no_video_fits_the_page_has_pictures(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(playing, "PAGE_BYTES", 1000)
    tags = Tags(page_of(tmp_path / "page.html", [answer(folder / "lossless.mkv")]))
    assert not tags.of("video")
    assert tags.of("img")[0]["class"] == "still"
    with pytest.raises(UserError, match="no answer"):
        write_page(tmp_path / "none.html", [], title="")
