"""Frames of many videos, decoded by processes of their own, chunk by chunk; a video that cannot be read fails alone."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import math
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from vmr_common.errors import UserError, one_line
from vmr_video.containers import MOST_PIXELS
from vmr_video.frames import CHUNK_BYTES, FrameReader, Frames
from vmr_video.media import VideoInfo, opened
from vmr_video.recipe import FrameRecipe
from vmr_video.worker import HEAD

START_S = 120.0
"""Seconds that a process may take to start."""
MOST_THREADS = 8
"""Threads of one decoder: where processors are left over, as beside the only video, long and large ones gain."""
MOST_WORKERS = 8
"""Decoders unless more are asked for."""
_LOOK_S = 0.1
_PIPE_BYTES, _SET_PIPE_SIZE = 1 << 20, 1031  # F_SETPIPE_SZ of Linux
_MOST_TEXT, _MOST_BYTES = 1 << 20, max(CHUNK_BYTES, 3 * MOST_PIXELS)
logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Decoded:
    """Some frames of a video ``(n, H, W, 3)`` uint8, n at least 1, in order; the last `info` is complete."""

    video: str
    frames: Frames
    last: bool
    info: VideoInfo


@dataclass(frozen=True)
class Failed:
    """A video that cannot be read, and why, in one line."""

    video: str
    reason: str


Piece = Decoded | Failed


def decode_all(
    videos: Sequence[tuple[str, Path]], recipe: FrameRecipe, *, workers: int, chunk: int, time_limit: float
) -> Iterator[Piece]:
    """Yields the frames of all videos: several at a time, the chunks of each in order.

    No more than a few chunks per process are held, however slowly they are taken. A process that crashes, or makes no
    progress for too long, is replaced; its video failed. All of them end with this iterator, and with this process.

    Args:
        videos: Pairs of id and path.
        recipe: The frames that are taken.
        workers: Processes; 0 decodes in this one, without a limit of time.
        chunk: Frames at a time at the most.
        time_limit: Seconds without a new picture after which a video is given up.
    """
    if workers < 1:
        for video, path in videos:
            yield from _here(video, path, recipe, chunk)
        return
    if not videos:
        return
    pool = _Pool(videos, recipe, chunk, time_limit)
    try:
        yield from pool.run(min(workers, len(videos)))
    finally:
        pool.close()


def _here(video: str, path: Path, recipe: FrameRecipe, chunk: int) -> Iterator[Piece]:
    try:
        with opened(path) as source:
            reader = FrameReader(source, recipe, chunk)
            held: Frames | None = None
            for taken in reader:
                if held is not None:
                    yield Decoded(video, held, False, reader.info)
                held = taken
            if held is not None:
                yield Decoded(video, held, True, reader.info)
    except UserError as error:
        yield Failed(video, one_line(str(error)))


class _Pool:
    """Threads that each feed one process, and the queue through which their pieces come."""

    def __init__(
        self, videos: Sequence[tuple[str, Path]], recipe: FrameRecipe, chunk: int, time_limit: float
    ) -> None:
        self._left = deque(videos)
        self._recipe, self._chunk, self._limit = recipe, chunk, time_limit
        self._pieces: queue.Queue[Piece | BaseException | None] = queue.Queue()
        self._threads_each = 1
        self._stopped = threading.Event()
        self._threads: list[threading.Thread] = []
        self._processes: list[_Process] = []

    def run(self, workers: int) -> Iterator[Piece]:
        """Yields what the processes send until all videos are done."""
        self._pieces = queue.Queue(maxsize=workers + 1)
        self._threads_each = max(1, min(MOST_THREADS, processors() // workers))
        for number in range(workers):
            process = _Process(self._limit)
            self._processes.append(process)
            thread = threading.Thread(
                target=self._feed, args=(process,), name=f"decoding-{number}", daemon=True
            )
            self._threads.append(thread)
        watch = threading.Thread(target=self._watch, name="decoding-watch", daemon=True)
        for thread in (*self._threads, watch):
            thread.start()
        self._threads.append(watch)
        running = workers
        while running:
            piece = self._pieces.get()
            if piece is None:
                running -= 1
            elif isinstance(piece, BaseException):
                raise piece
            else:
                yield piece

    def close(self) -> None:
        """Ends all processes and threads, wherever they are."""
        self._stopped.set()
        for process in self._processes:
            process.kill()
        for thread in self._threads:
            thread.join()

    def _feed(self, process: _Process) -> None:
        """Gives videos to one process, and passes on what comes; runs in a thread."""
        try:
            while not self._stopped.is_set():
                try:
                    video, path = self._left.popleft()
                except IndexError:
                    break
                for piece in process.decode(video, path, self._recipe, self._chunk, self._threads_each):
                    self._put(piece)
                    if self._stopped.is_set():
                        break
            process.end()
            self._put(None)
        except BaseException as error:
            self._put(error)

    def _put(self, piece: Piece | BaseException | None) -> None:
        while not self._stopped.is_set():
            with contextlib.suppress(queue.Full):
                self._pieces.put(piece, timeout=_LOOK_S)
                return

    def _watch(self) -> None:
        """Kills processes that make no progress; runs in a thread."""
        while not self._stopped.wait(_LOOK_S):
            for process in self._processes:
                process.require_progress()


class _Process:
    """One process that decodes, started when it is needed and again when it died."""

    def __init__(self, time_limit: float) -> None:
        self._limit = time_limit
        self._process: subprocess.Popen[bytes] | None = None
        # between the thread that feeds it, the one that watches, and the caller's
        self._lock = threading.Lock()
        self._waits_since: float | None = None
        self._allowed = math.inf
        self._late = self._ended = False

    def decode(
        self, video: str, path: Path, recipe: FrameRecipe, chunk: int, threads: int
    ) -> Iterator[Piece]:
        """The pieces of one video, or why there are none (any more)."""
        job = {
            "path": os.fsencode(path).hex(),
            "recipe": dataclasses.asdict(recipe),
            "chunk": chunk,
            "every": min(1.0, self._limit / 4),
            "threads": threads,
        }
        process = self._started()
        if process is None:
            return
        assert process.stdin is not None
        with contextlib.suppress(OSError):  # it is dead, which reading finds out
            process.stdin.write(json.dumps(job).encode() + b"\n")
            process.stdin.flush()
        while True:
            message = self._message(process, self._limit)
            if message is None:
                reason = self._buried(process)
                if not self._ended:
                    yield Failed(video, one_line(f"{path}: {reason}"))
                return
            values, frames = message
            if values["kind"] == "failed":
                where = "" if "named" in values else f"{path}: "
                yield Failed(video, one_line(where + values["reason"]))
                return
            if values["kind"] == "log":
                logger.warning("%s", values["line"])
            if frames is not None:
                yield Decoded(video, frames, values["last"], VideoInfo(path=path, **values["info"]))
                if values["last"]:
                    return

    def end(self) -> None:
        """Lets an idle process go."""
        process = self._process
        if process is not None:
            assert process.stdin is not None
            with contextlib.suppress(OSError):
                process.stdin.close()
            process.wait()
            self._close(process)

    def kill(self) -> None:
        """Ends it at once, and for good."""
        with self._lock:
            self._ended = True
            if self._process is not None:
                self._process.kill()

    def require_progress(self) -> None:
        """Kills it if it has been waited for too long."""
        with self._lock:
            since = self._waits_since
            if since is not None and self._process is not None and time.monotonic() - since > self._allowed:
                self._late = True
                self._process.kill()

    def _started(self) -> subprocess.Popen[bytes] | None:
        if self._process is not None and self._process.poll() is None:
            return self._process
        # the modules of this process, and nothing from the folder in which it happens to run
        paths = os.pathsep.join(os.path.abspath(path) for path in sys.path if path)
        with self._lock:
            if self._ended:
                return None
            self._process = process = subprocess.Popen(
                [sys.executable, "-P", "-m", "vmr_video.worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env={**os.environ, "PYTHONPATH": paths},
            )
            self._late = False
        assert process.stdout is not None
        _widen(process.stdout)
        if self._message(process, START_S) is None:
            reason = self._buried(process)
            if self._ended:
                return None
            raise RuntimeError(f"the process that decodes videos did not start: {reason}")
        return process

    def _message(
        self, process: subprocess.Popen[bytes], allowed: float
    ) -> tuple[dict[str, Any], Frames | None] | None:
        """The next message; None if the process died."""
        assert process.stdout is not None
        with self._lock:
            self._allowed, self._waits_since = allowed, time.monotonic()
        try:
            return _read(process.stdout)
        finally:
            with self._lock:
                self._waits_since = None

    def _buried(self, process: subprocess.Popen[bytes]) -> str:
        """The end of a process in words."""
        process.kill()
        status = process.wait()
        self._close(process)
        if self._late:
            return f"no new picture for {self._allowed:g} s, given up"
        if status < 0:
            with contextlib.suppress(ValueError):
                return f"its decoder crashed ({signal.Signals(-status).name})"
        return f"its decoder ended with status {status}"

    def _close(self, process: subprocess.Popen[bytes]) -> None:
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        with self._lock:
            self._process = None


def default_workers() -> int:
    """Processes that decode unless said otherwise: one processor is left to the network."""
    return max(1, min(MOST_WORKERS, processors() - 1))


def processors() -> int:
    """Number of processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _read(file: IO[bytes]) -> tuple[dict[str, Any], Frames | None] | None:
    head = file.read(HEAD.size)
    if len(head) < HEAD.size:
        return None
    length, size = HEAD.unpack(head)
    if length > _MOST_TEXT or size > _MOST_BYTES:
        return None
    text = file.read(length)
    if len(text) < length:
        return None
    values: dict[str, Any] = json.loads(text)
    if not size:
        return values, None
    frames = np.empty(values["shape"], np.uint8)
    if frames.nbytes != size or _fill(file, frames) < size:
        return None
    return values, frames


def _fill(file: IO[bytes], frames: Frames) -> int:
    read: Callable[[memoryview], int | None] = file.readinto  # type: ignore[attr-defined]
    return read(memoryview(frames.data).cast("B")) or 0


def _widen(file: IO[bytes]) -> None:
    """A larger pipe, where the system has one: fewer switches between the processes."""
    with contextlib.suppress(ImportError, OSError):
        import fcntl

        fcntl.fcntl(file.fileno(), _SET_PIPE_SIZE, _PIPE_BYTES)
