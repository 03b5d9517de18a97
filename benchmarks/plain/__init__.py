"""Plain forms of what this project computes: written as the papers' programs run it, with nothing left out or shared.

Each module has functions without arguments that build a `Pair`. A plain form computes full maps, every pass by a call
of its own and every window of a video, on the weights and inputs of ours, and gives the same numbers.
"""

from collections.abc import Callable
from typing import NamedTuple


class Pair(NamedTuple):
    """Two ways to the same numbers; each function runs its way once, from warm inputs to the end."""

    ours: Callable[[], object]
    plain: Callable[[], object]
    difference: Callable[[], float]
    """The largest difference of what the last calls of both gave, relative to the largest number of the plain form."""
