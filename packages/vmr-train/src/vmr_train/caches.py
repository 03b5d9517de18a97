"""Size-bounded caches: of values that were used last, and of encoded videos while the weights stay."""

from __future__ import annotations

import operator
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from vmr_common.types import Query

if TYPE_CHECKING:
    from torch import nn

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class LRUCache(Generic[Key, Value]):
    """Values by key, of which those used longest ago go when there are too many. A pickled copy starts empty.

    Args:
        limit: The most that is kept; the value that came last always is.
        size: What a value counts, for example its bytes; None: every value counts one. Must be pickled with the rest.

    Example:
        >>> kept = LRUCache(2)
        >>> kept["a"], kept["b"] = 1, 2
        >>> kept.get("a"), kept.get("c")
        (1, None)
        >>> kept["c"] = 3
        >>> list(kept)
        ['a', 'c']
    """

    def __init__(self, limit: float, size: Callable[[Value], float] | None = None) -> None:
        self.limit = limit
        self.size = 0.0
        self._size_of = size
        self._values: OrderedDict[Key, Value] = OrderedDict()

    def get(self, key: Key) -> Value | None:
        """The value of a key, which counts as used now, or None."""
        found = self._values.get(key)
        if found is not None:
            self._values.move_to_end(key)
        return found

    def __setitem__(self, key: Key, value: Value) -> None:
        if key in self._values:
            self.size -= self._measure(self._values.pop(key))
        self._values[key] = value
        self.size += self._measure(value)
        while self.size > self.limit and len(self._values) > 1:
            self.size -= self._measure(self._values.popitem(last=False)[1])

    def __contains__(self, key: object) -> bool:
        return key in self._values

    def __iter__(self) -> Iterator[Key]:
        """Keys, those used longest ago first."""
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def clear(self) -> None:
        """Lets go of everything."""
        self._values.clear()
        self.size = 0.0

    def _measure(self, value: Value) -> float:
        return 1.0 if self._size_of is None else self._size_of(value)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_values": OrderedDict(), "size": 0.0}


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
