"""Requests and answers of the server, as its OpenAPI description has them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from vmr_common.timeline import MOST_SECONDS
from vmr_search.search import MOST_HITS, MOST_LETTERS
from vmr_search.server.limits import MOST_NAMES, MOST_PAGE
from vmr_video.answers.files import Kind

Seconds = Annotated[float, Field(ge=0, le=MOST_SECONDS, allow_inf_nan=False)]
Name = Annotated[str, Field(max_length=1000)]


class SearchRequest(BaseModel):
    """A sentence, and where it is searched for."""

    model_config = ConfigDict(extra="forbid")

    q: str = Field(min_length=1, max_length=MOST_LETTERS, description="the sentence")
    offset: int = Field(0, ge=0, lt=MOST_HITS, description="moments to skip")
    limit: int = Field(20, ge=1, le=MOST_PAGE, description="moments of the answer at the most")
    video: list[Name] = Field([], max_length=MOST_NAMES, description="only in this video; may be repeated")
    folder: list[Name] = Field([], max_length=MOST_NAMES, description="only in this folder; may be repeated")
    after: Seconds | None = Field(None, description="only what ends after this second of its video")
    before: Seconds | None = Field(None, description="only what begins before this second of its video")
    shortest: Seconds | None = Field(None, description="only moments of at least so many seconds")
    longest: Seconds | None = Field(None, description="only moments of at most so many seconds")
    least_score: float | None = Field(None, allow_inf_nan=False, description="only moments of this score")
    per_video: int | None = Field(None, ge=1, le=MOST_HITS, description="moments of one video at the most")
    exact: bool = Field(False, description="score every video, however long it takes")


class MarkersRequest(SearchRequest):
    """As a search; all that it finds goes into one file."""

    kind: Kind = Field("csv", description="form of the file")


class FoundMoment(BaseModel):
    """A moment that was found."""

    rank: int = Field(description="from 1")
    video: str = Field(description="id of the video")
    title: str = Field(description="name of its file, else its id")
    start: float = Field(description="seconds of the video")
    end: float = Field(description="seconds of the video")
    duration: float = Field(description="of the video, seconds")
    score: float = Field(description="what the answer is ranked by, higher is better")
    retrieval: float = Field(description="score of the retriever's window")
    grounding: float | None = Field(description="score of the method that grounded the moment")
    presence: float | None = Field(description="probability that the video shows the sentence at all")
    video_url: str | None = Field(description="plays the video; null without a file")
    strip_url: str | None = Field(description="a film strip of the moment, 6 pictures side by side")
    clip_url: str | None = Field(description="the moment as a file")


class SearchAnswer(BaseModel):
    """Moments of a sentence, best first."""

    query: str
    offset: int
    more: bool = Field(description="true if there are further moments behind these")
    videos: int = Field(description="of the corpus")
    note: str = Field(description="a remark in words; empty for none")
    seconds: dict[str, float] = Field(description="time of each part of the search")
    hits: list[FoundMoment]


class Health(BaseModel):
    """State of the server."""

    status: Literal["starting", "ready"] = Field(description="starting while the model is loaded")
    version: str
    videos: int = Field(description="that are searched")
    files: int = Field(description="of videos that can be watched")
