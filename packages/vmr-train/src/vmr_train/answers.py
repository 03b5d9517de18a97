"""Answers of a model as Python and notebooks show them: ranked moments, what a model attended to, tables of scores."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from vmr_common.errors import UserError, quoted
from vmr_common.io import write_text
from vmr_common.types import Prediction
from vmr_train.cli.results import ranked_moments
from vmr_train.presence import presence_text
from vmr_train.report.svg import el
from vmr_train.report.timelines import score_texts, time_ticks

if TYPE_CHECKING:
    from vmr_video.answers import Answer

Floats = NDArray[np.float64]

WIDTH, LEFT, RIGHT, ROW = 720, 110, 90, 24
"""Pixels: a picture, its margins beside the time axis, and a row."""
COLOUR = "#3b6fd4"


class Html(str):
    """A piece of HTML; a notebook displays it, elsewhere it is a text.

    Example:
        >>> Html("<b>3.2 s</b>")._repr_html_()
        '<b>3.2 s</b>'
    """

    __slots__ = ()

    def _repr_html_(self) -> str:
        return str(self)

    def save(self, path: str | Path) -> None:
        """Writes it as a page of its own."""
        write_text(
            path, f'<!doctype html><meta charset="utf-8"><body style="max-width: 760px">{self}</body>\n'
        )


class Moment(NamedTuple):
    """A moment that was found: seconds, and the model's score (higher is better).

    Example:
        >>> Moment(1.5, 4.0, 0.9).end
        4.0
    """

    start: float
    end: float
    score: float


@dataclass(frozen=True, eq=False)
class Predictions(Sequence[Moment]):
    """The moments of one sentence in one video, best first.

    Attributes:
        prediction: The same for files and metrics.
        duration: Of the video, seconds.
        file: The video file, where the question was about one; `page`, `cut` and `export` need it.

    Example:
        >>> found = Predictions(
        ...     Prediction(query="0", video="kitchen", text="she opens the fridge", moments=[[3.0, 9.5]], scores=[0.8]),
        ...     duration=30.0,
        ... )
        >>> found
        kitchen  she opens the fridge
        rank     start       end     score
           1    0:03.0    0:09.5     0.800
        >>> found[0].start, len(found), found.show().startswith("<figure")
        (3.0, 1, True)
    """

    prediction: Prediction
    duration: float
    file: Path | None = None

    @property
    def moments(self) -> Floats:
        """``(K, 2)`` float64, ``[start, end]`` in seconds."""
        return self.prediction.moments

    @property
    def scores(self) -> Floats:
        """``(K,)`` float64, higher is better; their scale is the model's own."""
        return self.prediction.scores

    @property
    def presence(self) -> float | None:
        """Probability that the video shows what the sentence says, or None where the model does not tell."""
        return self.prediction.presence

    def __len__(self) -> int:
        return len(self.scores)

    def __getitem__(self, rank: Any) -> Any:
        pairs = zip(self.moments.tolist(), self.scores.tolist(), strict=True)
        return [Moment(start, end, score) for (start, end), score in pairs][rank]

    def __iter__(self) -> Iterator[Moment]:
        return iter(self[:])

    def __repr__(self) -> str:
        return "\n".join(filter(None, [ranked_moments(self.prediction), presence_text(self.prediction)]))

    def show(self) -> Html:
        """The moments over the time of the video, as a picture for a notebook (see `Html`)."""
        rows = [
            Row(str(rank), spans=[(start, end, 1.0)], note=score)
            for rank, ((start, end), score) in enumerate(
                zip(self.moments.tolist(), score_texts(self.scores), strict=True), 1
            )
        ]
        title = f"{self.prediction.video}: {self.prediction.text}"
        presence = presence_text(self.prediction)
        title += f" ({presence})" if presence else ""
        return figure(title, timeline(self.duration, rows, "score"))

    def _repr_html_(self) -> str:
        return self.show()

    def page(self, path: str | Path, *more: Predictions) -> Path:
        """Writes a page that plays the moments, with those of `more` sentences or videos; returns its path.

        Raises:
            UserError: if no video file is known, or the page cannot be written.
        """
        from vmr_video.answers import write_page

        told = [one._answer() for one in (self, *more)]
        write_page(Path(path), told, title=", ".join(dict.fromkeys(one.video.path.stem for one in told)))
        return Path(path)

    def cut(self, folder: str | Path, *, k: int = 1, exact: bool = False) -> list[Path]:
        """Writes the first k moments as files of their own into a folder; returns their paths.

        Copies begin at a key frame; `exact` ones are encoded anew.

        Raises:
            UserError: if no video file is known, or a moment cannot be cut.
        """
        from vmr_video.answers import cut_moments

        return cut_moments(Path(folder), [self._answer()], exact=exact, k=k)

    def export(self, path: str | Path, *more: Predictions) -> Path:
        """Writes the moments as markers for an editor: a path that ends in .edl, .fcpxml or .csv; returns it.

        Raises:
            UserError: if no video file is known, or the path ends otherwise.
        """
        from vmr_video.answers import export
        from vmr_video.answers.files import marker_file

        place, kind = marker_file(str(path), "markers")
        export(place, [one._answer() for one in (self, *more)], kind)
        return place

    def _answer(self) -> Answer:
        if self.file is None:
            raise UserError(
                f"video {quoted(self.prediction.video, 60)} was not given as a video file, which pages, cuts and "
                "markers are made of"
            )
        from vmr_train.cli.video_files import answer_of
        from vmr_video.media import probe

        return answer_of(self.prediction, probe(self.file))


@dataclass(frozen=True, eq=False)
class Explanation:
    """The grounds of an answer: a text, the numbers behind it, and a picture.

    Attributes:
        text: For people; what `repr` shows.
        values: Arrays by name; docs/python.md says which a paper gives.
        picture: SVG or other markup.

    Example:
        >>> seen = Explanation("1 candidate", {"nll": np.array([2.5])}, el("svg"))
        >>> seen
        1 candidate
        >>> seen["nll"].tolist(), seen.show().startswith("<figure")
        ([2.5], True)
    """

    text: str
    values: Mapping[str, NDArray[Any]]
    picture: Markup

    def __getitem__(self, name: str) -> NDArray[Any]:
        return self.values[name]

    def __repr__(self) -> str:
        return self.text

    def show(self) -> Html:
        """The picture with its heading, for a notebook (see `Html`)."""
        return figure(self.text.partition("\n")[0], self.picture)

    def _repr_html_(self) -> str:
        return self.show()


class Rows(list[dict[str, Any]]):
    """The rows of ``results.json``: the model's, then those of the baselines, for each protocol.

    Attributes:
        text: The tables for people; what `repr` shows.

    Example:
        >>> rows = Rows([{"name": "rgn", "values": {"R@1,IoU@0.5": 0.47}}], "rgn  47.0")
        >>> rows
        rgn  47.0
        >>> rows[0]["values"]["R@1,IoU@0.5"]
        0.47
    """

    def __init__(self, rows: Sequence[dict[str, Any]], text: str) -> None:
        super().__init__(rows)
        self.text = text

    def __repr__(self) -> str:
        return self.text


# --- pictures ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Row:
    """A row of a timeline.

    Attributes:
        label: At its left.
        spans: Bars: start and end in seconds, opacity.
        curve: Times in seconds and values in [0, 1], drawn as a hill; or None.
        note: At its right.
    """

    label: str
    spans: Sequence[tuple[float, float, float]] = ()
    curve: tuple[NDArray[Any], NDArray[Any]] | None = None
    note: str = ""


def timeline(duration: float, rows: Sequence[Row], note: str = "") -> Markup:
    """Rows over the time of a video, as SVG; `note` is the heading of what stands at their right."""
    inner, bottom = WIDTH - LEFT - RIGHT, ROW * (len(rows) + 1)

    def at(time: float) -> float:
        return LEFT + min(max(time / duration, 0.0), 1.0) * inner

    parts = [_text(note, WIDTH - 4, ROW - 8, "end")]
    for place, label in time_ticks(duration):
        parts.append(
            el("line", x1=at(place), x2=at(place), y1=ROW, y2=bottom, stroke="currentColor", opacity=0.15)
        )
        parts.append(_text(label, at(place), bottom + 16, "middle"))
    for number, row in enumerate(rows, 1):
        top, floor = ROW * number, ROW * (number + 1)
        parts += [_text(row.label, LEFT - 8, floor - 8, "end"), _text(row.note, WIDTH - 4, floor - 8, "end")]
        for start, end, opacity in row.spans:
            wide = max(at(end) - at(start), 2.0)
            bar = el(
                "rect",
                x=at(start),
                width=wide,
                y=top + 6,
                height=ROW - 12,
                rx=2,
                fill=COLOUR,
                opacity=opacity,
            )
            parts.append(bar)
        if row.curve is not None:
            times, values = (np.asarray(side, dtype=np.float64) for side in row.curve)
            heights = floor - 2 - np.nan_to_num(values).clip(0, 1) * (ROW - 4)
            line = [f"{at(t):.1f} {y:.1f}" for t, y in zip(times.tolist(), heights.tolist(), strict=True)]
            outline = f"M{at(float(times[0])):.1f} {floor - 2}L{'L'.join(line)}L{at(float(times[-1])):.1f} {floor - 2}Z"
            parts.append(el("path", d=outline, fill=COLOUR, opacity=0.55))
    return _svg(bottom + 24, parts)


def heat_map(values: Floats, duration: float) -> Markup:
    """A proposal map ``(N, N)``: rows are first clips, columns last ones; NaN where there is no proposal."""
    size, left, top = len(values), 60, 26
    cell = 360 / size
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    parts = [
        el(
            "rect",
            x=left + column * cell,
            y=top + row * cell,
            width=cell,
            height=cell,
            fill=COLOUR,
            opacity=round(0.04 + 0.96 * (float(values[row, column]) - low) / max(high - low, 1e-12), 3),
        )
        for row, column in np.argwhere(np.isfinite(values)).tolist()
    ]
    for place, label in time_ticks(duration):
        where = place / duration * 360
        parts.append(_text(label, left + where, top + 378, "middle"))
        parts.append(_text(label, left - 8, top + where + 4, "end"))
    parts.append(_text("start (down), end (right); the darker, the likelier", left, 16, "start"))
    return _svg(top + 390, parts)


def image(png: bytes, about: str) -> Markup:
    """A PNG file as markup."""
    source = "data:image/png;base64," + base64.b64encode(png).decode()
    return el("img", src=source, alt=about, style="max-width: 100%")


def figure(title: str, picture: Markup) -> Html:
    """A picture with its heading."""
    heading = el("figcaption", title, style="font: 600 14px system-ui, sans-serif; margin: 4px 0")
    return Html(el("figure", heading, picture, style="margin: 8px 0"))


def _text(content: str, x: float, y: float, anchor: str) -> Markup:
    return el("text", content, x=x, y=y, text_anchor=anchor, fill="currentColor")


def _svg(height: float, parts: Sequence[Markup]) -> Markup:
    return el(
        "svg",
        *parts,
        xmlns="http://www.w3.org/2000/svg",
        viewBox=f"0 0 {WIDTH} {height}",
        style=f"width: 100%; max-width: {WIDTH}px; font: 12px system-ui, sans-serif",
        role="img",
    )
