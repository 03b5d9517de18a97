"""A size-bounded LRU cache."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from typing import Any, Generic, TypeVar

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
