"""HTML and SVG built from elements, so that every text is escaped unless it is markup already.

Control characters, which have no place in HTML, are written out as in JSON.
"""

from __future__ import annotations

import html
from collections.abc import Iterable
from typing import TypeAlias

from vmr_common.errors import visible

DASH, MINUS = "\N{EN DASH}", "\N{MINUS SIGN}"
VOID = frozenset({"br", "hr", "img", "input", "link", "meta"})

Child: TypeAlias = "str | Iterable[str] | None"
Attribute: TypeAlias = "str | float | bool | None"


class Markup(str):
    """Text that is HTML already and is not escaped again."""

    __slots__ = ()


def el(name: str, /, *children: Child, **attributes: Attribute) -> Markup:
    """One element; plain text is escaped, `Markup` is kept.

    Args:
        name: Tag name.
        *children: Text, markup, lists of them, or None (left out).
        **attributes: Underscores become hyphens and a trailing one is dropped (``class_``); None and False
            leave the attribute out, True gives an attribute without a value, floats are written short.

    Example:
        >>> el("p", "a < b", class_="note")
        '<p class="note">a &lt; b</p>'
    """
    opening = name + "".join(_attribute(key, value) for key, value in attributes.items())
    if name in VOID:
        return Markup(f"<{opening}>")
    return Markup(f"<{opening}>{join(*children)}</{name}>")


def join(*children: Child) -> Markup:
    """Children one after another, plain text escaped.

    Example:
        >>> join("a&b", [el("b", "c"), "d"], None)
        'a&amp;b<b>c</b>d'
    """
    parts: list[str] = []
    for child in children:
        if isinstance(child, Markup):
            parts.append(child)
        elif isinstance(child, str):
            parts.append(html.escape(visible(child)))
        elif child is not None:
            parts.append(join(*child))
    return Markup("".join(parts))


def _attribute(key: str, value: Attribute) -> str:
    if value is None or value is False:
        return ""
    key = key.rstrip("_").replace("_", "-")
    if value is True:
        return f" {key}"
    text = number(value) if isinstance(value, (int, float)) else visible(value)
    return f' {key}="{html.escape(text)}"'


def number(value: float) -> str:
    """A number for an attribute: at most two decimals, no trailing zeros.

    Example:
        >>> number(12.0), number(0.126), number(-0.001)
        ('12', '0.13', '0')
    """
    text = f"{value:.2f}".rstrip("0").rstrip(".")
    return "0" if text in {"-0", ""} else text
