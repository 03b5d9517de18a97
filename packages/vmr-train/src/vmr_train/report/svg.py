"""SVG built from elements, so that every text is escaped unless it is markup already.

Control characters, which have no place in HTML, are written out as in JSON.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeAlias

from markupsafe import Markup, escape

from vmr_common.errors import visible

DASH, MINUS = "\N{EN DASH}", "\N{MINUS SIGN}"

Child: TypeAlias = "str | Iterable[str]"


def printable(value: Any) -> Any:
    """A value for a page: markup as it is, anything else as text whose control characters are written out."""
    return value if isinstance(value, Markup) else visible(str(value))


def el(name: str, /, *children: Child, **attributes: str | float | None) -> Markup:
    """One element; plain text is escaped, `Markup` is kept.

    Args:
        name: Tag name.
        *children: Text, markup, or lists of them.
        **attributes: Underscores become hyphens and a trailing one is dropped (``class_``); None leaves the
            attribute out, numbers are written short.

    Example:
        >>> el("text", "a < b", [el("tspan", "c"), "&"], class_="note", x=1.0)
        Markup('<text class="note" x="1">a &lt; b<tspan>c</tspan>&amp;</text>')
    """
    opening = name
    for key, value in attributes.items():
        if value is not None:
            text = number(value) if isinstance(value, (int, float)) else value
            opening += f' {key.rstrip("_").replace("_", "-")}="{escape(printable(text))}"'
    content = (child for part in children for child in ([part] if isinstance(part, str) else part))
    return Markup(f"<{opening}>{''.join(escape(printable(child)) for child in content)}</{name}>")


def number(value: float) -> str:
    """A number for an attribute: at most two decimals, no trailing zeros.

    Example:
        >>> number(12.0), number(0.126), number(-0.001)
        ('12', '0.13', '0')
    """
    text = f"{value:.2f}".rstrip("0").rstrip(".")
    return "0" if text in {"-0", ""} else text
