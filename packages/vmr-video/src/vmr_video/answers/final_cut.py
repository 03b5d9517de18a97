"""Final Cut Pro XML 1.9: videos with their moments as keyword ranges, and a project of the moments in order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from xml.etree.ElementTree import Element, SubElement, indent, tostring

from vmr_common.errors import UserError
from vmr_video.answers.answer import Answer, file_name
from vmr_video.answers.numbering import FrameEvent, TimeCode, rate_of, time_codes
from vmr_video.answers.reading import opened

_Format = tuple[Fraction, int, int]


def fcpxml(title: str, events: Sequence[FrameEvent]) -> str:
    """The text of a file; see `vmr_video.answers.export`."""
    root = Element("fcpxml", version="1.9")
    clips = _resources(SubElement(root, "resources"), events)
    holder = SubElement(SubElement(root, "library"), "event", name=title or "moments")
    for path, clip in clips.items():
        whole = clip.element(holder, 0, _time(clip.count, clip.code.rate))
        for event in events:
            if event.answer.video.path == path:
                start, length = clip.at(event.frames[0]), _time(event.length, event.rate)
                _named(whole, "keyword", event, start, length)
    _project(SubElement(holder, "project", name=title or "moments"), events, clips)
    indent(root)
    head = '<?xml version="1.0" encoding="UTF-8"?>\n<!DOCTYPE fcpxml>\n\n'
    return head + tostring(root, encoding="unicode") + "\n"


@dataclass(frozen=True)
class _Clip:
    """A video among the resources of a file."""

    answer: Answer
    code: TimeCode
    asset_id: str
    format_id: str

    @property
    def count(self) -> int:
        return max(round(self.answer.video.duration * self.code.rate), 1)

    def at(self, frame: int) -> str:
        """The time of a frame by the video's own time code."""
        return _time(frame + self.code.first, self.code.rate)

    def asset(self, resources: Element) -> None:
        """Adds the file to the resources."""
        path = self.answer.video.path
        values = {"id": self.asset_id, "name": file_name(path), "start": self.at(0)}
        values |= {"duration": _time(self.count, self.code.rate), "hasVideo": "1", "format": self.format_id}
        values |= {"hasAudio": "1", "audioSources": "1"} if _has_sound(path) else {}
        asset = SubElement(resources, "asset", values)
        SubElement(asset, "media-rep", kind="original-media", src=path.absolute().as_uri())

    def element(self, parent: Element, first: int, duration: str, offset: str | None = None) -> Element:
        """Adds a stretch that begins at a frame."""
        values = {} if offset is None else {"offset": offset}
        values |= {"ref": self.asset_id, "name": file_name(self.answer.video.path), "start": self.at(first)}
        values |= {"duration": duration, "format": self.format_id, "tcFormat": _numbers(self.code)}
        return SubElement(parent, "asset-clip", values)


def _resources(resources: Element, events: Sequence[FrameEvent]) -> dict[Path, _Clip]:
    answers = {event.answer.video.path: event.answer for event in events}
    formats: dict[_Format, str] = {}
    for answer in answers.values():
        rate, width, height = kind = _format(answer)
        if kind not in formats:
            formats[kind] = f"r{len(formats) + 1}"
            values = {"id": formats[kind], "frameDuration": _time(1, rate)}
            SubElement(resources, "format", values | {"width": str(width), "height": str(height)})
    codes = time_codes(events)
    clips = {
        path: _Clip(answer, codes[path], f"r{len(formats) + number}", formats[_format(answer)])
        for number, (path, answer) in enumerate(answers.items(), 1)
    }
    for clip in clips.values():
        clip.asset(resources)
    return clips


def _project(project: Element, events: Sequence[FrameEvent], clips: dict[Path, _Clip]) -> None:
    """The moments, one behind the other, at the rate of the first video."""
    rate, first = events[0].rate, clips[events[0].answer.video.path]
    values = {"format": first.format_id, "tcStart": "0s", "tcFormat": _numbers(first.code)}
    sequence = SubElement(project, "sequence", values)
    spine, place = SubElement(sequence, "spine"), 0
    for event in events:
        clip = clips[event.answer.video.path]
        # a moment of a video of another rate takes the frames of the sequence that cover it
        length = max(round(event.length / event.rate * rate), 1)
        element = clip.element(spine, event.frames[0], _time(length, rate), _time(place, rate))
        _named(element, "marker", event, clip.at(event.frames[0]), _time(1, event.rate))
        place += length
    sequence.set("duration", _time(place, rate))


def _named(parent: Element, kind: str, event: FrameEvent, start: str, duration: str) -> None:
    values = {"start": start, "duration": duration, "value": event.text or "moment", "note": event.label}
    SubElement(parent, kind, values)


def _format(answer: Answer) -> _Format:
    return rate_of(answer), answer.video.width, answer.video.height


def _numbers(code: TimeCode) -> str:
    return "DF" if code.drop else "NDF"


def _time(frames: int, rate: Fraction) -> str:
    """Frames as a rational number of seconds, by the rate, so that programs see whole frames."""
    seconds = Fraction(frames) / rate
    if seconds.denominator == 1:
        return f"{seconds}s"
    return f"{frames * rate.denominator}/{rate.numerator}s"


def _has_sound(path: Path) -> bool:
    try:
        with opened(path) as (container, _):
            return bool(container.streams.audio)
    except UserError:  # the moments are known without the file
        return False
