"""Rules for fields of a configuration beside their type: ranges of numbers, and text for names and paths.

A field states its range in its annotation (``layers: Layers = 3``), and `require_ranges` checks all of a dataclass.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Callable
from dataclasses import fields
from typing import Annotated, Any, Union, get_args, get_origin

from vmr_common.errors import quoted, require, visible
from vmr_common.ranges import Rule, real, whole

NAME_BYTES = 200
PATH_BYTES = 4096


def _text(limit: int, without: str) -> Callable[[Any], bool]:
    def holds(value: Any) -> bool:
        if not isinstance(value, str) or visible(value) != value or set(value) & set("\n\t" + without):
            return False
        return 0 < len(value.encode()) <= limit

    return holds


def _is_folder_name(value: Any) -> bool:
    return _text(NAME_BYTES, "/\\")(value) and value not in (".", "..")


Width = Annotated[int, whole(1, 65_536)]
"""Columns of a matrix."""
Layers = Annotated[int, whole(1, 1_000)]
"""Layers, heads and other parts of a network that exist once each."""
Count = Annotated[int, whole(1, 1_000_000)]
"""A count, at least one."""
CountOrNone = Annotated[int, whole(0, 1_000_000)]
"""A count, or 0 for none."""
Rows = Annotated[int, whole(1, 65_536)]
"""Frames, clips or words of one video or query."""
MapClips = Annotated[int, whole(1, 1_024)]
"""Clips of a 2D map, whose cells are their square."""
Processes = Annotated[int, whole(0, 1_024)]
"""Of a loader; 0 for none of its own."""
Updates = Annotated[int, whole(1, 10**12)]
"""Updates of the weights, or epochs."""
UpdatesOrNone = Annotated[int, whole(0, 10**12)]
"""Updates of the weights, or 0 for none."""
Seed = Annotated[int, whole(0, 2**64 - 1)]
"""Of a random generator."""
Share = Annotated[float, real(0, 1)]
"""A part of a whole, 0 and 1 included."""
Probability = Annotated[float, real(0, 1, below=True)]
"""A share below 1: of dropout, of decay."""
Fraction = Annotated[float, real(0, 1, above=True)]
"""A share above 0."""
Weight = Annotated[float, real(0, 1e9)]
"""A factor, 0 or more."""
Positive = Annotated[float, real(1e-12, 1e9)]
"""A number above 0."""
Seconds = Annotated[float, real(1, 1e6)]
"""A time limit."""
Margin = Annotated[float, real(-1e9, 1e9)]
"""A number of either sign."""
FolderName = Annotated[
    str,
    Rule(_is_folder_name, f"the name of a folder, at most {NAME_BYTES} bytes without control characters"),
]
"""Of a run."""
PathText = Annotated[
    str, Rule(_text(PATH_BYTES, ""), f"a path, at most {PATH_BYTES:,} bytes without control characters")
]
"""Of a file or folder."""


def types_of(schema: type[Any], *, rules: bool = False) -> dict[str, Any]:
    """The types of a dataclass's fields, in their order; with `rules` what is stated beside the type too."""
    hints = typing.get_type_hints(schema, include_extras=rules)
    return {field.name: hints[field.name] for field in fields(schema)}


def require_ranges(config: Any, section: str = "") -> None:
    """Checks all fields of a configuration dataclass against what their annotations state.

    Args:
        config: The instance, from its ``__post_init__``.
        section: Where it lies in the whole configuration, such as ``optim.schedule``.

    Raises:
        UserError: naming the key, what was found and what was expected.
    """
    for name, hint in types_of(type(config), rules=True).items():
        _require(getattr(config, name), hint, f"{section}.{name}" if section else name)


def _require(value: Any, hint: Any, key: str) -> None:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        rule: Rule = arguments[1]
        require(rule.holds(value), key, quoted(value, 60), rule.expected)
    elif origin in (Union, types.UnionType):
        if value is not None:
            listed = isinstance(value, list)
            kinds = [kind for kind in arguments if kind is not type(None)]
            _require(value, next(kind for kind in kinds if (get_origin(kind) is list) == listed), key)
    elif origin is dict:
        for name, item in value.items():
            _require(item, arguments[1], f"{key}[{name}]")
    elif origin in (list, tuple):
        for item in value:
            _require(item, arguments[0], key)
