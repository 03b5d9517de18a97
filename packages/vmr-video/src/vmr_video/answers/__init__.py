"""Moments that were found, in forms to watch and to work on: a page, files of their own, markers for editors."""

from typing import TYPE_CHECKING

from vmr_common.lazy import lazy_names

if TYPE_CHECKING:
    from vmr_video.answers.answer import Answer, time_code
    from vmr_video.answers.cut import cut_moments
    from vmr_video.answers.editors import export
    from vmr_video.answers.page import write_page

__all__ = ["Answer", "cut_moments", "export", "time_code", "write_page"]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "vmr_video.answers.answer": "Answer time_code",
        "vmr_video.answers.cut": "cut_moments",
        "vmr_video.answers.editors": "export",
        "vmr_video.answers.page": "write_page",
    },
)
