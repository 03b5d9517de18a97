"""The page of answers in a browser: moments play from their start, and stop at their end."""

import pytest

from browser import opened
from videos import pictures, write_video
from vmr_video.answers import Answer, playing, write_page
from vmr_video.media import probe

STATE = """(() => {
  const video = [...document.querySelectorAll('video')].find(one => !one.hidden);
  return video && [video.currentTime + Number(video.dataset.start), video.paused, video.videoWidth];
})()"""


@pytest.fixture
def movie(tmp_path):
    return probe(write_video(tmp_path / "movie.mp4", pictures(200), rate=20, sound=10.0))


@pytest.mark.parametrize("long", [False, True])
def test_moments_play_and_stop(movie, tmp_path, monkeypatch, long):
    if long:  # clips around the moments instead of the whole
        monkeypatch.setattr(playing, "WHOLE_BYTES", movie.path.stat().st_size - 1)
        monkeypatch.setattr(playing, "PREVIEW_S", 8.0)
        monkeypatch.setattr(playing, "AROUND_S", 0.5)
    moments = [[6.0, 6.7], [1.0, 1.5]]
    page = tmp_path / "page.html"
    write_page(page, [Answer(movie, "it jumps", moments, [1.0, 0.5])], title="Found")
    with opened(page, tmp_path / "home") as tab:
        tab.wait("document.readyState === 'complete' && document.querySelector('footer') !== null")
        assert tab.value("document.querySelectorAll('video').length") == (2 if long else 1)
        tab.wait(f"{STATE}[2] > 0")
        assert tab.value(STATE)[0] == pytest.approx(6.0, abs=0.1)  # it shows the best moment, and waits
        assert tab.value(STATE)[1]
        for number, (start, end) in enumerate(moments):
            if number:
                tab.press(str(number + 1))
            else:
                tab.click(".moments button", number)
            tab.wait(f"!{STATE}[1]")
            assert start <= tab.value(STATE)[0] < end
            tab.wait(f"{STATE}[1]")
            assert tab.value(STATE)[0] == pytest.approx(end, abs=0.15)
            assert "Stopped at the end" in tab.value("document.querySelector('.now').textContent")
        tab.click(".strip figure", 0)
        tab.wait(f"{STATE}[0] > 5 && {STATE}[1]")
