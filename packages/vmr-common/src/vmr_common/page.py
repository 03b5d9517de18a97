"""The stylesheet that all pages share: reports, answers and the search."""

from __future__ import annotations

import functools
from importlib import resources


@functools.cache
def stylesheet() -> str:
    """CSS of colours (light and dark), type and cards; a page's own rules stand behind it."""
    return resources.files("vmr_common").joinpath("page.css").read_text("utf-8")
