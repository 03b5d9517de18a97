"""The embedded data sets: rendered videos of moving shapes, sentences about them, features from the pixels.

`ensure` generates one on first use, in seconds and without a download; a spec gives the same data everywhere.
`SHORT` is the spec of ``shapes`` (16 to 32 s a video), `LONG` that of ``shapes-long`` (10 to 20 minutes).
"""

from vmr_shapes.generate import ensure, frames, queries, read_spec
from vmr_shapes.spec import LONG, SHORT, ShapesSpec

__all__ = [
    "LONG",
    "SHORT",
    "ShapesSpec",
    "ensure",
    "frames",
    "queries",
    "read_spec",
]
