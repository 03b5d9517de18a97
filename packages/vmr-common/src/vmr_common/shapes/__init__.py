"""The embedded data set: rendered videos of moving shapes, sentences about them, features from the pixels.

`ensure` generates it on first use, in seconds and without a download; a spec gives the same data everywhere.
"""

from vmr_common.shapes.generate import ensure, frames, queries, read_spec
from vmr_common.shapes.png import png_bytes
from vmr_common.shapes.spec import SHORT, ShapesSpec

__all__ = ["SHORT", "ShapesSpec", "ensure", "frames", "png_bytes", "queries", "read_spec"]
