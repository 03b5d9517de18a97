"""Pictures of a video scaled, cut and turned into RGB by FFmpeg's filters, in the order of its program."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vmr_common.errors import UserError
from vmr_video.containers import require_pixels
from vmr_video.recipe import FrameRecipe
from vmr_video.rotation import turns

if TYPE_CHECKING:
    from av import VideoFrame
    from av.filter import Graph

Frame = NDArray[np.uint8]


class Scaler:
    """Makes frames ``(H, W, 3)`` uint8 RGB of decoded pictures, all of one size.

    A chain of filters is made for pictures of one kind, and anew where their size, format or rotation changes in the
    middle of a video. Their size follows from the first picture; where nothing is cut, later ones are stretched to it.
    """

    def __init__(self, recipe: FrameRecipe, where: str) -> None:
        self._recipe, self._where = recipe, where
        self._graph: Graph | None = None
        self._kind: tuple[object, ...] = ()
        self._size: tuple[int, int] | None = None

    def __call__(self, picture: VideoFrame) -> Frame:
        """The frame of a picture."""
        turned = turns(picture)
        kind = (
            *(picture.width, picture.height, picture.format.name, picture.colorspace, picture.color_range),
            *turned,
        )
        if self._graph is None or kind != self._kind:
            self._graph, self._kind = self._made(picture, turned), kind
        self._graph.vpush(picture)
        return np.asarray(self._graph.vpull().to_ndarray(), np.uint8)

    def _made(self, picture: VideoFrame, turned: list[tuple[str, str]]) -> Graph:
        from av.filter import Graph

        width, height = picture.width, picture.height
        require_pixels(width, height, self._where)
        if sum(name == "transpose" for name, _ in turned) % 2:
            width, height = height, width
        graph = Graph()
        graph.threads = 1
        arguments = (
            f"video_size={picture.width}x{picture.height}:pix_fmt={picture.format.name}:time_base=1/1:pixel_aspect=1/1"
            f":colorspace={picture.colorspace}:range={picture.color_range}"
        )
        chain = [
            ("buffer", arguments),
            *turned,
            *self._filters(width, height),
            ("format", "rgb24"),
            ("buffersink", ""),
        ]
        graph.link_nodes(*(graph.add(name, text or None) for name, text in chain))
        graph.configure()
        return graph

    def _filters(self, width: int, height: int) -> Iterator[tuple[str, str]]:
        recipe = self._recipe
        size = recipe.size
        wide, high = scaled_size(width, height, recipe)
        cut = recipe.crop and recipe.resize != "stretch"
        if not cut:
            self._size = self._size or (wide, high)
            wide, high = self._size
        require_pixels(wide, high, f"{self._where}: scaled")
        if recipe.resize != "none" or recipe.full_chroma or (wide, high) != (width, height):
            exact = "+full_chroma_int+full_chroma_inp+accurate_rnd" if recipe.full_chroma else ""
            yield "scale", f"{wide}:{high}:flags={recipe.filter}{exact}"
        if cut:
            if min(wide, high) < size:
                raise UserError(
                    f"{self._where}: pictures of {wide} x {high} pixels, too small to cut a square of {size} from"
                )
            yield "crop", f"{size}:{size}:{int((wide - size) / 2.0)}:{int((high - size) / 2.0)}"


def scaled_size(width: int, height: int, recipe: FrameRecipe) -> tuple[int, int]:
    """Width and height of a scaled picture; the longer side is rounded down, as the field's extractors do.

    Example:
        >>> scaled_size(480, 270, FrameRecipe(fps=1))
        (398, 224)
    """
    size = recipe.size
    if recipe.resize == "none":
        return width, height
    if recipe.resize == "stretch":
        return size, size
    if height >= width:
        return size, int(height * size / width)
    return int(width * size / height), size
