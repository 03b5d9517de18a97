"""The process that decodes videos for `decoding`: jobs come by stdin, frames go by stdout.

A decoder may crash or hang over a hostile file, and takes nothing but this process with it. That ends with its
stdin, which is also how it learns that who started it is gone.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import os
import queue
import signal
import struct
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from vmr_common.boundary import reason
from vmr_common.errors import UserError, one_line
from vmr_video.frames import FrameReader, Frames
from vmr_video.media import VideoInfo, opened
from vmr_video.recipe import FrameRecipe

HEAD = struct.Struct(">IQ")
"""Before each message: bytes of its JSON, and of the pixels that follow."""
MOST_MEMORY = 16 << 30
"""Bytes of address space that a decoder may take, where the system can hold it to that."""


class Channel:
    """Sends messages; also the lines of the log, and signs of life."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._last = time.monotonic()

    def send(self, kind: str, values: Mapping[str, Any] | None = None, frames: Frames | None = None) -> None:
        """Sends one message; blocks where nobody takes it, which is what bounds the memory."""
        text = json.dumps({"kind": kind, **(values or {})}).encode()
        size = 0 if frames is None else frames.nbytes
        self._file.write(HEAD.pack(len(text), size) + text)
        if frames is not None:
            self._file.write(memoryview(frames.data).cast("B"))
        self._file.flush()
        self._last = time.monotonic()

    def alive(self, every: float) -> None:
        """Says that work goes on, unless something was sent less than so many seconds ago."""
        if time.monotonic() - self._last >= every:
            self.send("alive")


class _Lines(logging.Handler):
    def __init__(self, channel: Channel) -> None:
        super().__init__(logging.WARNING)
        self._channel = channel

    def emit(self, record: logging.LogRecord) -> None:
        self._channel.send("log", {"line": one_line(record.getMessage())})


def main() -> None:
    """Runs until stdin ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for who started this
    # libraries may print: what they print must not stand between the frames
    channel = Channel(os.fdopen(os.dup(1), "wb"))
    os.dup2(2, 1)
    _limit_memory()
    logging.basicConfig(handlers=[_Lines(channel)], force=True)
    jobs: queue.Queue[str] = queue.Queue()
    threading.Thread(target=_listen, args=(jobs,), daemon=True).start()
    channel.send("ready")
    while True:
        job = json.loads(jobs.get())
        recipe = FrameRecipe(**job["recipe"])
        try:
            _decode(channel, Path(os.fsdecode(bytes.fromhex(job["path"]))), recipe, job)
        except BrokenPipeError:
            os._exit(0)
        except UserError as error:
            channel.send("failed", {"reason": str(error), "named": True})
        except MemoryError:
            channel.send("failed", {"reason": "needs more memory than there is"})
        except Exception as error:  # whatever a library raises over a damaged file
            channel.send("failed", {"reason": f"cannot be decoded ({type(error).__name__}: {reason(error)})"})


def _listen(jobs: queue.Queue[str]) -> None:
    for line in sys.stdin:
        jobs.put(line)
    os._exit(0)  # also in the middle of a picture


def _decode(channel: Channel, path: Path, recipe: FrameRecipe, job: Mapping[str, Any]) -> None:
    with opened(path, job["threads"]) as video:
        reader = FrameReader(video, recipe, job["chunk"], step=lambda: channel.alive(job["every"]))
        held: Frames | None = None
        for taken in reader:
            if held is not None:
                channel.send("frames", described(held, reader.info, last=False), held)
            held = taken
        if held is not None:
            channel.send("frames", described(held, reader.info, last=True), held)


def described(frames: Frames, info: VideoInfo, *, last: bool) -> dict[str, Any]:
    """The text of a message about the frames that follow it."""
    facts = {name: value for name, value in dataclasses.asdict(info).items() if name != "path"}
    return {"shape": frames.shape, "info": facts, "last": last}


def _limit_memory() -> None:
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        hard = resource.getrlimit(resource.RLIMIT_AS)[1]
        limit = MOST_MEMORY if hard == resource.RLIM_INFINITY else min(hard, MOST_MEMORY)
        resource.setrlimit(resource.RLIMIT_AS, (limit, hard))


if __name__ == "__main__":
    main()
