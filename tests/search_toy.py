"""A corpus in memory with vectors of words: what needs no trained model is tested on it."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from vmr_common.errors import UserError
from vmr_search.engine.moment_index import EVERYTHING, Filter, FoundVideo, VideoWindows

SIZE = 64
WORDS = ("red", "green", "blue", "circle", "square", "spins", "grows", "door", "dog")


class MemoryIndex:
    """Every video in a dictionary, scored one by one: the plain form that engines are held against."""

    def __init__(self, size: int = SIZE) -> None:
        self.size = size
        self._videos: dict[str, VideoWindows] = {}

    def __len__(self) -> int:
        return len(self._videos)

    def __contains__(self, video: object) -> bool:
        return video in self._videos

    def videos(self) -> list[str]:
        return list(self._videos)

    def durations(self) -> dict[str, float]:
        return {name: one.duration for name, one in self._videos.items()}

    def add(self, videos: Iterable[VideoWindows]) -> int:
        before = len(self)
        for one in videos:
            if one.video in self._videos:
                raise UserError(f"video {one.video!r} is there already")
            self._videos[one.video] = one
        return len(self) - before

    def replace(self, videos: Iterable[VideoWindows]) -> int:
        given = {one.video: one for one in videos}
        self._videos |= given
        return len(given)

    def remove(self, videos: Sequence[str]) -> None:
        for video in videos:
            if video not in self._videos:
                raise UserError(f"holds no video {video!r}")
        for video in videos:
            del self._videos[video]

    def search(
        self, queries: np.ndarray, n: int, where: Filter = EVERYTHING, *, exact: bool = False
    ) -> list[list[FoundVideo]]:
        answers = []
        for query in queries:
            found = []
            for one in self._videos.values():
                keep = where.keeps(one.windows)
                if keep.any() and (where.videos is None or one.video in where.videos):
                    scores = one.vectors[keep].astype(np.float32) @ query
                    found.append(FoundVideo(one.video, one.duration, one.windows[keep], scores))
            answers.append(sorted(found, key=lambda video: -video.best)[:n])
        return answers

    def refresh(self) -> None: ...

    def verify(self) -> None: ...

    def compact(self) -> None: ...

    def close(self) -> None: ...


def vector(word: str) -> np.ndarray:
    """The unit vector of a word."""
    seed = int.from_bytes(hashlib.sha256(word.encode()).digest()[:4], "big")
    drawn = np.random.default_rng(seed).normal(size=SIZE).astype(np.float32)
    return drawn / np.linalg.norm(drawn)


class WordRetriever:
    """A sentence is the mean of the vectors of its words; a window is the one of its caption."""

    name, size = "words", SIZE
    facts: Mapping[str, object] = {}
    manifest = None

    def identity(self) -> str:
        return "0" * 64

    def save(self, path) -> bool:
        return False

    def require_features(self, store, *, allow_other: bool = False) -> None: ...

    def windows(self, features, durations):
        """Rows are vectors of seconds, each of which is a window of its own."""
        return [
            (
                np.stack([np.arange(len(rows)), np.arange(1, len(rows) + 1)], 1) * (duration / len(rows)),
                rows,
            )
            for rows, duration in zip(features, durations, strict=True)
        ]

    def unsearchable(self, texts: Sequence[str]) -> list[str | None]:
        known = [any(word in WORDS for word in text.split()) for text in texts]
        return [None if one else "the model knows no word of it" for one in known]

    def sentences(self, texts: Sequence[str]) -> np.ndarray:
        for text, why in zip(texts, self.unsearchable(texts), strict=True):
            if why is not None:
                raise UserError(f"the sentence {text!r}: {why}")
        return np.stack([sum(vector(word) for word in text.split() if word in WORDS) for text in texts])


def videos(captions: Mapping[str, Sequence[str]], seconds: float = 2.0) -> list[VideoWindows]:
    """Videos by the sentence of each of their windows, all of so many seconds."""
    made = []
    for name, texts in captions.items():
        vectors = WordRetriever().sentences(texts)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        starts = np.arange(len(texts)) * seconds
        made.append(
            VideoWindows(name, len(texts) * seconds, np.stack([starts, starts + seconds], 1), vectors)
        )
    return made


CAPTIONS = {
    "kitchen": ("red circle", "green square spins", "dog door"),
    "garden": ("blue circle grows", "red square"),
    "street": ("dog", "red circle spins", "blue door", "green dog"),
}


def corpus() -> MemoryIndex:
    """A small corpus."""
    made = MemoryIndex()
    made.add(videos(CAPTIONS))
    return made
