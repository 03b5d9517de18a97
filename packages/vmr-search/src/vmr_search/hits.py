"""The answer to a sentence over a corpus: ranked moments of many videos."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import overload


@dataclass(frozen=True, kw_only=True)
class Hit:
    """A found moment.

    Attributes:
        video: Its id.
        start: Seconds of the video.
        end: Seconds.
        score: What the answer is ranked by, higher is better.
        duration: Of the video, seconds.
        retrieval: Score of the retriever's window.
        grounding: Score of the method that grounded the moment; None: the window itself is the answer.
        presence: Probability that the video shows the sentence at all, where the method tells it.
        file: The video's file, where it is known.
    """

    video: str
    start: float
    end: float
    score: float
    duration: float
    retrieval: float
    grounding: float | None = None
    presence: float | None = None
    file: Path | None = None


@dataclass(frozen=True, eq=False, repr=False)
class Results(Sequence[Hit]):
    """The moments of a sentence, best first.

    Attributes:
        text: The sentence.
        hits: The moments.
        videos: How many videos the corpus has.
        note: A remark in words, for example that there is probably no such moment; "" for none.
        seconds: Wall time of each part (`sentence`, `retrieve`, `ground`).
    """

    text: str
    hits: tuple[Hit, ...]
    videos: int
    note: str = ""
    seconds: dict[str, float] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.hits)

    @overload
    def __getitem__(self, number: int) -> Hit: ...
    @overload
    def __getitem__(self, number: slice) -> tuple[Hit, ...]: ...
    def __getitem__(self, number: int | slice) -> Hit | tuple[Hit, ...]:
        return self.hits[number]

    def __iter__(self) -> Iterator[Hit]:
        return iter(self.hits)

    def __repr__(self) -> str:
        from vmr_search.showing import table

        return table(self)

    def _repr_html_(self) -> str:
        from vmr_search.showing import html

        return html(self)
