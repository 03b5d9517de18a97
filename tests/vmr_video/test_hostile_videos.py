"""Files that are no videos, or damaged ones: one line each, no traceback, no hang, nothing opened beside the file."""

import io
import os
import random
import socket
import time
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from videos import hum, pictures, write_sound, write_video
from vmr_common.errors import UserError
from vmr_video.decoding import Failed, decode_all
from vmr_video.frames import frames
from vmr_video.media import probe, video_files
from vmr_video.recipe import FrameRecipe

pytestmark = pytest.mark.e2e  # real decoders, engines or processes

RECIPE = FrameRecipe(fps=5, size=32)
TIME_LIMIT = 20.0


def picture(kind: str) -> bytes:
    data = io.BytesIO()
    Image.fromarray(pictures(1)[0]).save(data, kind)
    return data.getvalue()


def patched(data: bytes, old: bytes, new: bytes) -> bytes:
    assert old in data
    return data.replace(old, new)


def scrambled(data: bytes, first: float, last: float, share: float, seed: int = 0) -> bytes:
    """With a share of the bytes of a stretch drawn anew."""
    drawn, out = random.Random(seed), bytearray(data)
    for at in range(int(first * len(out)), int(last * len(out))):
        if drawn.random() < share:
            out[at] = drawn.randrange(256)
    return bytes(out)


def jpeg_of_claimed_size(folder: Path) -> bytes:
    """A video of JPEGs whose header says 16,000 by 16,000."""
    data = write_video(folder / "j.avi", pictures(3, 64, 48), codec="mjpeg", pixels="yuvj420p").read_bytes()
    size = (16_000).to_bytes(2, "big")
    return patched(data, (48).to_bytes(2, "big") + (64).to_bytes(2, "big"), size + size)


def covered_sound(folder: Path) -> bytes:
    path = folder / "cover.mka"
    with av.open(str(path), "w", format="mp4") as file:
        voice = file.add_stream("aac", rate=16_000, layout="mono")
        cover = file.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt = 64, 48, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        hum(file, voice, 1.0)
        frame = av.VideoFrame.from_ndarray(pictures(1)[0], format="rgb24")
        file.mux(cover.encode(frame))
        file.mux(cover.encode(None))
    return path.read_bytes()


def made(folder: Path) -> dict[str, bytes]:
    """Files by name."""
    mp4 = write_video(folder / "good.mp4", pictures(30), sound=3).read_bytes()
    mkv = write_video(folder / "good.mkv", pictures(30)).read_bytes()
    avi = write_video(folder / "good.avi", pictures(30), codec="mpeg4").read_bytes()
    gap = write_video(
        folder / "gap.mkv", pictures(3), times=[0, 100, 90_000_000], base=Fraction(1, 1000), rate=1000
    )
    many = {"comment": "x" * (6 << 20)}
    tags = write_video(folder / "tags.mkv", pictures(5), metadata=many).read_bytes()
    titled = write_video(folder / "titled.mkv", pictures(5), metadata={"title": "a film"}).read_bytes()
    target = (folder / "good.mp4").absolute()
    dash = (
        '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static"><Period><AdaptationSet>'
        f"<Representation><BaseURL>file://{target}</BaseURL></Representation></AdaptationSet></Period></MPD>"
    )
    return {
        "empty.mp4": b"",
        "zeros.mp4": bytes(200_000),
        "noise.mp4": random.Random(0).randbytes(200_000),
        "text.mp4": b"a film about a dog\n" * 100,
        "page.mp4": b"<!DOCTYPE html><html><body>404</body></html>",
        "archive.mp4": b"PK\x03\x04" + bytes(100),
        "pickle.mp4": b"\x80\x04\x95" + bytes(100),
        "cut-index.mp4": mp4[: len(mp4) // 2],
        "cut.mkv": mkv[: len(mkv) // 2],
        "cut-avi.avi": avi[: len(avi) // 2],
        "head.mkv": mkv[:400],
        "sound.mp4": write_sound(folder / "sound.m4a").read_bytes(),
        "cover.mp4": covered_sound(folder),
        "png.mp4": picture("PNG"),
        "jpeg.mp4": picture("JPEG"),
        "bmp.mp4": picture("BMP"),
        "webp.mp4": picture("WEBP"),
        "tiff.mkv": picture("TIFF"),
        "claims.avi": jpeg_of_claimed_size(folder),
        "thin.mkv": write_video(
            folder / "thin0.mkv", pictures(3, 8192, 2), codec="ffv1", pixels="bgr0"
        ).read_bytes(),
        "gap.mkv": gap.read_bytes(),
        "tags.mkv": tags,
        "title.mkv": titled.replace(b"a film", b"\xff \xe9lm"),  # not UTF-8
        "list.m3u8.mp4": f"#EXTM3U\n#EXTINF:3,\n{target}\n#EXT-X-ENDLIST\n".encode(),
        "net.mp4": b"#EXTM3U\n#EXTINF:3,\nhttp://127.0.0.1:9/a.ts\n#EXT-X-ENDLIST\n",
        "concat.mp4": f"ffconcat version 1.0\nfile {target}\n".encode(),
        "session.mp4": b"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 9 RTP/AVP 96\n",
        "dash.mp4": dash.encode(),
        "subtitles.mkv": b"1\n00:00:00,000 --> 00:00:01,000\nhello\n",
        "scrambled.mkv": scrambled(mkv, 0.1, 0.9, 1.0),
        "index.mp4": scrambled(mp4, 0.8, 1.0, 0.5),
        "new\nline.mp4": b"nothing",
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    where, elsewhere = tmp_path_factory.mktemp("hostile"), tmp_path_factory.mktemp("made")
    for name, data in made(elsewhere).items():
        (where / name).write_bytes(data)
    (where / "dangling.mp4").symlink_to(where / "nowhere")
    (where / "loop.mp4").symlink_to(where / "loop.mp4")
    (where / "link-to-folder.mp4").symlink_to(elsewhere)
    os.mkfifo(where / "pipe.mp4")
    (where / "device.mp4").symlink_to("/dev/zero")
    with socket.socket(socket.AF_UNIX) as listening:
        here = os.getcwd()
        os.chdir(where)
        listening.bind("socket.mp4")
        os.chdir(here)
    return where


def test_hostile_files_fail_alone_with_one_line_each(folder):
    videos = video_files([folder])
    assert len(videos) > 30
    began = time.monotonic()
    said = {}
    for piece in decode_all(videos, RECIPE, workers=2, chunk=8, time_limit=TIME_LIMIT):
        if isinstance(piece, Failed):
            assert piece.video not in said
            said[piece.video] = piece.reason
    assert time.monotonic() - began < 60
    assert {video for video, _ in videos} - set(said) == {"tags", "thin", "title"}
    paths = dict(videos)
    assert "link-to-folder" not in paths  # nor is the folder searched
    for video, reason in said.items():
        line = f"{paths[video]}".replace("\n", " ")
        assert line in reason, reason
        assert "\n" not in reason
        assert len(reason) < len(line) + 120, reason
        assert "decoder" not in reason, reason  # none crashed, none was given up
        assert "Error" not in reason, reason
    told = {
        "empty": "the file is empty",
        "sound": "holds sound alone",
        "cover": "holds sound alone",
        "png": "a PNG picture",
        "jpeg": "a JPEG picture",
        "webp": "a WebP picture",
        "cut-index": "cut off, or without its index",
        "cut": "cut off or damaged",
        "claims": "no picture of it can be decoded",
        "gap": "its times are damaged",
        "list.m3u8": "refers to other files",
        "net": "refers to other files",
        "concat": "refers to other files",
        "session": "refers to other files",
        "dash": "refers to other files",
        "dangling": "a link to a file that does not exist",
        "pipe": "expected a regular file",
        "device": "expected a regular file",
    }
    for video, part in told.items():
        assert part in said[video], said[video]


def test_what_is_named_itself_is_refused_at_once(folder):
    for name, part in {
        "dangling.mp4": "a link to a file that does not exist",
        "pipe.mp4": "found a pipe or a device",
        "device.mp4": "found a pipe or a device",
        "absent": "no such file or folder",
        "loop.mp4": "cannot read",
    }.items():
        with pytest.raises(UserError, match=part):
            video_files([folder / name])


def test_folders_are_searched_and_ids_are_their_own(tmp_path):
    for name in ("b/two.MKV", "a/one.mp4", "a/notes.txt", ".hidden/three.mp4", "a/.four.mp4"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    assert video_files([tmp_path]) == [("one", tmp_path / "a/one.mp4"), ("two", tmp_path / "b/two.MKV")]
    assert video_files([tmp_path / "a/notes.txt"]) == [("notes", tmp_path / "a/notes.txt")]
    (tmp_path / "b/one.avi").write_bytes(b"")
    with pytest.raises(UserError, match=r"two videos with the id 'one': .*one\.mp4 and .*one\.avi; rename"):
        video_files([tmp_path])
    (tmp_path / "none").mkdir()
    with pytest.raises(UserError, match="holds no video, expected files ending in"):
        video_files([tmp_path / "none"])


def test_strange_but_true(tmp_path):
    tiny = write_video(tmp_path / "tiny.mkv", pictures(5, 1, 1), codec="ffv1", pixels="bgr0")
    assert np.concatenate(list(frames(tiny, FrameRecipe(fps=10)))).shape == (5, 224, 224, 3)
    wide = write_video(tmp_path / "wide.mkv", pictures(2, 16_384, 64), codec="ffv1", pixels="bgr0")
    assert np.concatenate(list(frames(wide, FrameRecipe(fps=10)))).shape == (2, 224, 224, 3)
    thin = write_video(tmp_path / "thin.mkv", pictures(2, 8192, 2), codec="ffv1", pixels="bgr0")
    with pytest.raises(UserError, match=r"thin\.mkv: scaled: pictures of 917504 x 224 pixels, at most"):
        list(frames(thin, FrameRecipe(fps=10)))
    fast = write_video(tmp_path / "fast.mkv", pictures(5), rate=1_000_000, base=Fraction(1, 1000))
    assert probe(fast).duration < 1
    before = write_video(tmp_path / "before.nut", pictures(10), times=range(-7, 3), codec="mpeg4")
    assert len(np.concatenate(list(frames(before, RECIPE)))) == 5
    odd_name = write_video(tmp_path / "http:a%03d.mp4", pictures(5))
    assert probe(odd_name).width == 64


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["good.mp4", "good.mkv", "good.avi", "good.ts"])
def test_damage_anywhere_is_a_line_or_frames(tmp_path, kind):
    data = write_video(
        tmp_path / kind, pictures(30), codec="mpeg4" if kind.endswith("avi") else "libx264"
    ).read_bytes()
    videos = []
    for seed in range(60):
        path = tmp_path / f"{seed}{Path(kind).suffix}"
        first = random.Random(seed).random()
        path.write_bytes(scrambled(data, first, min(1, first + 0.1), 0.3, seed))
        videos.append((str(seed), path))
    for piece in decode_all(videos, RECIPE, workers=2, chunk=8, time_limit=TIME_LIMIT):
        if isinstance(piece, Failed):
            assert "decoder" not in piece.reason
            assert "Error" not in piece.reason
