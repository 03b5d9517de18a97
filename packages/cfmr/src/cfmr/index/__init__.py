"""The index of a video collection: set once, query many (an extension of the paper, see docs/cfmr.md)."""

from cfmr.index.video_index import Hit, VideoIndex

__all__ = ["Hit", "VideoIndex"]
