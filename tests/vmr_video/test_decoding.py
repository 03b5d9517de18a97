"""Decoding in processes of their own: the same frames, few of them held, nothing left behind; bad videos fail alone."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from videos import pictures, write_video
from vmr_video import decoding
from vmr_video.decoding import Decoded, Failed, decode_all
from vmr_video.frames import frames
from vmr_video.recipe import FrameRecipe

pytestmark = pytest.mark.e2e  # real decoders, engines or processes

RECIPE = FrameRecipe(fps=5, size=32)


def gathered(videos, *, workers=2, chunk=4, time_limit=60.0, recipe=RECIPE):
    found, failed = {}, {}
    for piece in decode_all(videos, recipe, workers=workers, chunk=chunk, time_limit=time_limit):
        if isinstance(piece, Failed):
            failed[piece.video] = piece.reason
        else:
            parts, done = found.setdefault(piece.video, ([], []))
            assert not done
            assert 1 <= len(piece.frames) <= chunk
            parts.append(piece.frames)
            if piece.last:
                done.append(piece.info)
    return {video: (np.concatenate(parts), *done) for video, (parts, done) in found.items()}, failed


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    return [
        (f"v{n}", write_video(folder / f"v{n}.mp4", pictures(10 + 10 * n, seed=n), rate=10)) for n in range(4)
    ]


def children() -> set[int]:
    """Processes that decode, of this one."""
    found = set()
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                status, words = (folder / "status").read_text(), (folder / "cmdline").read_bytes()
            except OSError:
                continue
            if f"PPid:\t{os.getpid()}\n" in status and b"vmr_video.worker" in words:
                found.add(int(folder.name))
    return found


def test_processes_give_what_one_process_gives(videos):
    found, failed = gathered(videos)
    here, _ = gathered(videos, workers=0)
    assert not failed
    assert set(found) == {video for video, _ in videos}
    for video, path in videos:
        rows, info = found[video]
        assert np.array_equal(rows, np.concatenate(list(frames(path, RECIPE))))
        assert np.array_equal(rows, here[video][0])
        assert info == here[video][1]
        assert info.path == path
    assert not children()


@pytest.mark.parametrize("workers", [0, 3])
def test_nothing_gives_nothing(workers):
    assert gathered([], workers=workers) == ({}, {})


def test_bad_videos_fail_alone(videos, tmp_path):
    (tmp_path / "no.mp4").write_bytes(b"nothing of the kind")
    bad = [("no", tmp_path / "no.mp4"), ("gone", tmp_path / "gone.mp4")]
    found, failed = gathered([bad[0], *videos[:2], bad[1]])
    assert set(found) == {"v0", "v1"}
    assert set(failed) == {"no", "gone"}
    assert failed["gone"] == f"{tmp_path / 'gone.mp4'}: no such file, expected a video file"
    assert all("\n" not in reason for reason in failed.values())


STUCK = """
import os, signal, time
from vmr_video import worker
decode = worker._decode
def hurt(channel, path, *rest):
    if "v1" in path.name: {what}
    decode(channel, path, *rest)
worker._decode = hurt
worker.main()
"""


def broken(tmp_path, monkeypatch, what: str) -> None:
    """Makes the processes do something at the video v1."""
    (tmp_path / "hurt.py").write_text(STUCK.format(what=what))
    start = subprocess.Popen
    program = [sys.executable, str(tmp_path / "hurt.py")]
    monkeypatch.setattr(decoding.subprocess, "Popen", lambda command, **given: start(program, **given))


@pytest.mark.parametrize(
    ("what", "told"),
    [
        ("os.kill(os.getpid(), signal.SIGSEGV)", "its decoder crashed (SIGSEGV)"),
        ("os._exit(3)", "its decoder ended with status 3"),
        ("time.sleep(1000)", "no new picture for 3 s, given up"),
        ("raise KeyError('x')", "cannot be decoded (KeyError: 'x')"),
    ],
)
def test_a_process_that_dies_or_hangs_costs_one_video(videos, tmp_path, monkeypatch, what, told):
    broken(tmp_path, monkeypatch, what)
    found, failed = gathered(videos, workers=1, time_limit=3)
    assert set(found) == {"v0", "v2", "v3"}
    assert failed == {"v1": f"{videos[1][1]}: {told}"}
    assert not children()


def test_processes_that_cannot_start_are_a_fault(videos, monkeypatch):
    start = subprocess.Popen
    monkeypatch.setattr(
        decoding.subprocess, "Popen", lambda command, **given: start([sys.executable, "-c", "1/0"], **given)
    )
    with pytest.raises(RuntimeError, match="did not start: its decoder ended with status 1"):
        gathered(videos)


def test_who_stops_early_leaves_nothing_behind(videos):
    pieces = decode_all(videos, RECIPE, workers=2, chunk=1, time_limit=60)
    assert isinstance(next(pieces), Decoded)
    assert children()
    began = time.monotonic()
    pieces.close()
    assert time.monotonic() - began < 5
    assert not children()


def test_a_slow_reader_is_no_hang_and_holds_few_frames(videos):
    pieces = decode_all(videos[3:], FrameRecipe(fps=100, size=224), workers=1, chunk=4, time_limit=0.8)
    total = 0
    for count, piece in enumerate(pieces):
        assert isinstance(piece, Decoded)
        total += len(piece.frames)
        if count == 3:
            time.sleep(1.6)
    assert total == 400


OWNER = """
import sys, time
from pathlib import Path
from vmr_video.decoding import decode_all
from vmr_video.recipe import FrameRecipe
pieces = decode_all([("v", Path(sys.argv[1]))], FrameRecipe(fps=900, size=224), workers=1, chunk=1, time_limit=60)
next(pieces)
import vmr_video.decoding, threading
print([p.pid for p in __import__("gc").get_objects() if type(p).__name__ == "Popen"][0], flush=True)
time.sleep(1000)
"""


def test_processes_die_with_a_parent_that_is_killed(videos):
    paths = os.pathsep.join(path for path in sys.path if path)
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, str(videos[0][1])],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": paths},
    )
    try:
        worker = int(owner.stdout.readline())
    finally:
        owner.send_signal(signal.SIGKILL)
        owner.wait()
        owner.stdout.close()
    for _ in range(100):
        if not Path(f"/proc/{worker}").exists() or "zombie" in Path(f"/proc/{worker}/status").read_text():
            return
        time.sleep(0.1)
    raise AssertionError("the process still runs")
