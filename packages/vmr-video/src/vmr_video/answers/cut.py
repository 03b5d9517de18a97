"""Moments as video files of their own: copied at key frames, or encoded anew to the frame."""

from __future__ import annotations

import contextlib
import filecmp
import itertools
import logging
import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vmr_common.boundary import reason
from vmr_common.errors import UserError
from vmr_common.io import sync_folder, umask, writing
from vmr_video.answers.answer import Answer, file_name, time_code
from vmr_video.answers.encode import Quality, encode
from vmr_video.answers.reading import (
    LEAD,
    TOLERANCE,
    begin,
    key_frame,
    opened,
    packet_time,
    require_room,
    seek,
    sound_stream,
)

if TYPE_CHECKING:
    from av.container import InputContainer

logger = logging.getLogger(__name__)

MP4 = {"h264", "hevc", "av1", "mpeg4", "aac", "mp3", "ac3", "eac3", "alac"}
"""Codecs that players expect in MP4; others stay in the kind of file that they came in."""
_OWN = (".webm", ".mov")
_LONGEST_STEM = 120  # characters of a name, so that rank and times fit behind them
_WORTH_SAYING = 0.05  # seconds that a copy begins earlier; less would read as 0.0 s


def cut_moments(
    folder: str | Path,
    answers: Sequence[Answer],
    *,
    exact: bool = False,
    k: int = 1,
    stop: Callable[[], bool] = lambda: False,
) -> list[Path]:
    """Files of the first k moments of every answer: ``<stem>-<rank>-<start>-<end>.mp4``, seconds.

    Of several sentences about one video it is ``<stem>-<number of the sentence>-<rank>-<start>-<end>.mp4``.

    A copy loses nothing and takes no time, but begins at the last key frame at or before the moment; where that is
    earlier, the log says by how much. Codecs that MP4 does not hold are copied into ``.mkv``, ``.webm`` or ``.mov``.
    An exact cut is encoded anew (H.264, AAC). Sound, its sync and the rotation are kept either way.

    A file that is there is never overwritten: one of the same content stays, beside another the name gets a number.

    Args:
        folder: Is made where it is not there.
        answers: A moment that two sentences share gives a file for each; sentences count from 1.
        exact: Begin and end at the moment, to the frame.
        k: Moments of each answer.
        stop: Asked again and again while an exact cut is encoded; True ends it.

    Raises:
        UserError: if a video cannot be read, nothing can be written there, or `stop` has said so.
    """
    folder = Path(folder)
    found: dict[tuple[Path, str, float, float], Path] = {}
    sentences: dict[Path, list[str]] = {}
    for answer in answers:
        texts = sentences.setdefault(answer.video.path, [])
        if answer.text not in texts:
            texts.append(answer.text)
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".cut-") as work:
            for answer in answers:
                texts = sentences[answer.video.path]
                number = f"-{texts.index(answer.text) + 1}" if len(texts) > 1 else ""
                for rank, start, end, _ in answer.within(k):
                    key = (answer.video.path, answer.text, start, end)
                    if key in found:
                        continue
                    stem = f"{answer.video.path.stem[:_LONGEST_STEM]}{number}-{rank}-{start:.2f}-{end:.2f}"
                    made = _cut(answer.video.path, Path(work) / "moment", start, end, exact=exact, stop=stop)
                    found[key] = _publish(made, folder, stem)
        sync_folder(folder)
    return list(found.values())


def _cut(
    path: Path, target: Path, start: float, end: float, *, exact: bool, stop: Callable[[], bool]
) -> Path:
    if exact:
        made = target.with_suffix(".mp4")
        encode(path, made, start, end, Quality(), stop)
        return made
    with opened(path) as (source, stream):
        kinds = _kinds([stream, sound_stream(source)], path.suffix.lower())
    for kind in kinds:
        made = target.with_suffix(kind)
        with contextlib.suppress(_DoesNotFit):
            _copy(path, made, start, end)
            return made
    raise UserError(
        f"{path}: its streams cannot be copied into {' or '.join(kinds)}; an exact cut encodes them anew"
    )


class _DoesNotFit(Exception):  # noqa: N818 - decides between kinds of files
    """A kind of file does not hold a codec."""


def _kinds(streams: Sequence[Any], suffix: str) -> list[str]:
    """The kinds of files to try, as suffixes."""
    # decoders of one codec have several names, e.g. libdav1d
    if {stream.codec.canonical_name for stream in streams if stream is not None} <= MP4:
        return [".mp4", ".mkv"]
    return [suffix, ".mkv"] if suffix in _OWN else [".mkv"]


def _copy(path: Path, target: Path, start: float, end: float) -> None:
    """Writes packets from the last key frame before a moment to its end."""
    import av

    with opened(path) as (source, stream):
        sound = sound_stream(source)
        first = key_frame(source, stream, start)
        if first is None or first >= end:
            raise UserError(f"{path}: has no key frame before {end:.2f} s; an exact cut needs none")
        if start - first >= _WORTH_SAYING:
            logger.info(
                "%s: the copy of %s to %s begins at the key frame at %s, %.1f s earlier "
                "(not with --cut-exact; in Python: exact=True)",
                file_name(path),
                *(time_code(time) for time in (start, end, first)),
                start - first,
            )
        try:
            with av.open(
                str(target), "w", options={"movflags": "+faststart"} if target.suffix == ".mp4" else {}
            ) as out:
                _copy_packets(source, out, [stream] if sound is None else [stream, sound], first, end)
        except (av.error.FFmpegError, ValueError) as error:
            require_room(error)
            raise _DoesNotFit(reason(error)) from None


def _copy_packets(source: InputContainer, out: Any, streams: list[Any], first: float, end: float) -> None:
    copies = {stream: out.add_stream_from_template(stream) for stream in streams}
    pictures = streams[0]
    last = dict.fromkeys(streams, first)
    begun = False
    seek(source, pictures, first - LEAD)
    for packet in source.demux(streams):
        shown, stream = packet_time(source, packet), packet.stream
        if shown is None:
            continue
        decoded = shown if packet.dts is None else float(packet.dts * packet.time_base) - begin(source)
        last[stream] = decoded
        # a picture that shows later may be needed by one that follows in the file
        if decoded >= end - TOLERANCE:
            if last[pictures] > end + LEAD or min(last.values()) >= end - TOLERANCE:
                return
            continue
        if stream is pictures:
            begun = begun or (packet.is_keyframe and abs(shown - first) <= TOLERANCE)
            if not begun:
                continue
        if shown < first - TOLERANCE:
            continue
        shift = round((first + begin(source)) / packet.time_base)
        packet.pts = None if packet.pts is None else packet.pts - shift
        packet.dts = None if packet.dts is None else packet.dts - shift
        packet.stream = copies[stream]
        out.mux(packet)


def _publish(made: Path, folder: Path, stem: str) -> Path:
    """Moves a finished file to its name, or to the next one that is free; returns where it is now."""
    os.chmod(made, 0o666 & ~umask())
    for number in itertools.count(1):
        target = folder / f"{stem}{'' if number == 1 else f'-{number}'}{made.suffix}"
        try:
            os.link(made, target)  # unlike a rename it replaces nothing
            made.unlink()
        except FileExistsError:
            if target.is_file() and filecmp.cmp(made, target, shallow=False):
                return target
            continue
        except OSError:  # a file system without links
            try:
                os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
            except FileExistsError:
                continue
            os.replace(made, target)
        return target
    raise AssertionError("numbers do not end")
