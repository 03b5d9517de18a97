"""Entries of a source of features that are nearly the one that is missing, and what to do about it."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from vmr_common.errors import listed
from vmr_common.values import video_stem, without_ending

_MOST_COMPARED = 2000  # names that are compared letter by letter
_ALIKE = 0.85


def nearby(video: str, names: Sequence[str], called: Callable[[str], str] = repr) -> str:
    """What is there instead of a missing video, and the option that takes it; "" where nothing is like it.

    Args:
        video: The id that is missing.
        names: All ids that are there.
        called: What an id is called in a message.

    Example:
        >>> nearby("s30-d52.avi", ["s30-d52"])
        "'s30-d52' is there: --strip-extension (strip_extension of a split) drops such endings"
        >>> nearby("yard", ["yard_flow", "yard_rgb"])
        "'yard_flow', 'yard_rgb' are there: --ending (data.features.ending) says which: _flow, _rgb"
        >>> nearby("videos/yard", ["yard"])
        "'yard' is there: --strip-extension (strip_extension of a split) drops the folder"
    """
    there, bare = set(names), video_stem(video)
    drops = "such endings" if without_ending(video) != video else "the folder"
    strip = f"--strip-extension (strip_extension of a split) drops {drops}" if bare != video else ""
    if strip and bare in there:
        return f"{called(bare)} is there: {strip}"
    endings = sorted(name[len(bare) :] for name in there if name.startswith((f"{bare}_", f"{bare}.")))
    usual = [ending for ending in endings if 3 * sum(name.endswith(ending) for name in there) >= len(there)]
    if usual:
        found = ", ".join(called(bare + ending) for ending in usual)
        if len(usual) > 1:
            found += f" are there: --ending (data.features.ending) says which: {', '.join(usual)}"
        else:
            found += f" is there: --ending {usual[0]} (data.features.ending) takes it"
        return found + (f", and {strip}" if strip else "")
    letters = _letters(bare)
    alike = [name for name in names if letters and _letters(without_ending(name)) == letters]
    alike += [name for name in (f"v_{bare}", bare.removeprefix("v_")) if name in there and name not in alike]
    if not alike:
        # numbered ids are all alike
        near = [
            name
            for name in names
            if name[:1] == video[:1]
            and abs(len(name) - len(video)) < 4
            and _unnumbered(name) != _unnumbered(video)
        ]
        alike = difflib.get_close_matches(video, near[:_MOST_COMPARED], 2, _ALIKE)
        return f"similar: {', '.join(map(called, alike))}" if alike else ""
    return f"{listed([called(name) for name in alike], 2)} is there"


def _unnumbered(name: str) -> str:
    return "".join(letter for letter in name if not letter.isdigit())


def _letters(name: str) -> str:
    return "".join(letter for letter in name.casefold() if letter.isalnum())


def kinds_of(names: Iterable[str]) -> str:
    """How many files of each ending there are, for a message.

    Example:
        >>> kinds_of(["a.mp4", "b.mp4", "README"])
        '2 .mp4, 1 without an ending'
    """
    stems = [name.rpartition(".") for name in names]
    counts = Counter(f".{ending}" if stem else "without an ending" for stem, _, ending in stems)
    return listed([f"{count:,} {kind}" for kind, count in counts.most_common()], 6) or "nothing"
