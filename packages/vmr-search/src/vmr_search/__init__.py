"""Corpus search: retrieve videos by a sentence, ground the moment in them, watch it."""

from typing import TYPE_CHECKING

from vmr_common.lazy import lazy_names

if TYPE_CHECKING:
    from vmr_search.engine.moment_index import Filter, FoundVideo, MomentIndex, VideoWindows
    from vmr_search.hits import Hit, Results
    from vmr_search.opening import open
    from vmr_search.search import Search

__all__ = ["Filter", "FoundVideo", "Hit", "MomentIndex", "Results", "Search", "VideoWindows", "open"]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "vmr_search.engine.moment_index": "Filter FoundVideo MomentIndex VideoWindows",
        "vmr_search.hits": "Hit Results",
        "vmr_search.opening": "open",
        "vmr_search.search": "Search",
    },
)
