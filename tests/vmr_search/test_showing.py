"""Results as text and in a notebook."""

import re

from videos import pictures, write_video
from vmr_search import Hit, Results

HOSTILE = "<script>alert('x')</script>\n\x1b[31m"


def hit(video, start, end, **more):
    return Hit(video=video, start=start, end=end, score=0.5, duration=90.0, retrieval=0.5, **more)


def test_a_notebook_shows_film_strips_of_files_that_are_known(tmp_path, caplog):
    movie = write_video(tmp_path / "movie.mp4", pictures(20))
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    hits = (
        hit("movie", 0.0, 1.0, file=movie),
        hit("movie", 1.0, 2.0, file=movie, presence=0.25),
        hit("other", 0.0, 1.0),
        hit("broken", 0.0, 1.0, file=tmp_path / "broken.mp4"),
    )
    shown = Results(text="a dog", hits=hits, videos=3, note="perhaps")._repr_html_()
    assert shown.count("data:image/jpeg;base64,") == 10
    assert "present 25 %" in shown
    assert "in 3 videos" in shown
    assert len(shown) < 100_000
    assert "broken.mp4" in caplog.text


def test_what_comes_from_outside_stays_text():
    results = Results(text=HOSTILE, hits=(hit(HOSTILE, 0.0, 1.0),), videos=1, note=HOSTILE)
    shown = results._repr_html_()
    assert not re.findall(r"<script|\x1b", shown)
    assert shown.count("&lt;script&gt;") == 3
    assert "\x1b" not in repr(results)
    assert len(repr(results).splitlines()) == 4


def test_nothing_found_is_said():
    results = Results(text="a dog", hits=(), videos=2)
    assert repr(results) == "a dog\nno moment"
    assert "no moment" in results._repr_html_()
