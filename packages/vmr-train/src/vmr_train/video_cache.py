"""A cache of what a network makes of a video before the query comes in, valid while its weights stay."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Generic, Protocol, TypeVar

from torch import nn

from vmr_common.types import Query
from vmr_train.lru_cache import LRUCache

KEPT_BYTES = 2 << 30
"""Videos are kept up to this size: those of the published test splits fit."""


class Sized(Protocol):
    """Anything that knows its size: a tensor, or several."""

    @property
    def nbytes(self) -> int:
        """Memory that it takes."""


Encoded = TypeVar("Encoded", bound=Sized)


class VideoCache(Generic[Encoded]):
    """The encodings of the videos used last, until other weights are loaded or `clear` is called.

    Args:
        model: Whose encodings they are.
        limit: Most bytes to keep.
    """

    def __init__(self, model: nn.Module, limit: int = KEPT_BYTES) -> None:
        self._kept: LRUCache[str, Encoded] = LRUCache(limit, operator.attrgetter("nbytes"))
        model.register_load_state_dict_post_hook(lambda *_: self.clear())

    def of(self, videos: Sequence[str], encode: Callable[[list[int]], Iterable[Encoded]]) -> list[Encoded]:
        """The encodings of some videos, each id once.

        Args:
            videos: Their ids.
            encode: Encodes those at some places of `videos`, at once; called for those not met before, if any.
        """
        found = {video: kept for video in videos if (kept := self._kept.get(video)) is not None}
        new = [place for place, video in enumerate(videos) if video not in found]
        if new:
            for place, encoded in zip(new, encode(new), strict=True):
                found[videos[place]] = self._kept[videos[place]] = encoded
        return [found[video] for video in videos]

    def clear(self) -> None:
        """Lets go of everything: the weights are about to change."""
        self._kept.clear()

    def __iter__(self) -> Iterator[str]:
        """The videos at hand, those used longest ago first."""
        return iter(self._kept)


def distinct_videos(queries: Iterable[Query]) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """The videos of some queries, each once in the order of their first queries, and the place of each query's.

    Example:
        >>> distinct_videos([Query(id=n, video=v, text="", duration=1.0) for n, v in ("1b", "2a", "3b")])
        (('b', 'a'), (0, 1, 0))
    """
    places: dict[str, int] = {}
    place_of = tuple(places.setdefault(query.video, len(places)) for query in queries)
    return tuple(places), place_of
