"""The form of the boxes in a file, and boxes of any form in ours."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leorn.object_features.layouts import Floats
from vmr_common.errors import UserError, require

ORDERS = ("x1 y1 x2 y2", "y1 x1 y2 x2", "x y w h", "cx cy w h")
UNITS = ("normalised", "pixels")
SLACK = 0.02  # boxes may stick out of the picture by so much: detectors round


@dataclass(frozen=True, kw_only=True)
class BoxForm:
    """Form of the boxes in some files.

    Attributes:
        order: One of `ORDERS`; ``x y w h`` begins with the upper left corner, ``cx cy w h`` with the middle.
        units: One of `UNITS`; None means pixels where the picture's size is known, else fractions.
        size: Width and height of the pictures in pixels, where the files do not say it themselves.
    """

    order: str = ORDERS[0]
    units: str | None = None
    size: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        require(self.order in ORDERS, "box order", repr(self.order), f"one of {', '.join(map(repr, ORDERS))}")
        require(self.units in (None, *UNITS), "box units", self.units, " or ".join(UNITS))
        positive = self.size is None or min(self.size) > 0
        require(positive, "image size", self.size, "a positive width and height in pixels")

    def standard(
        self, boxes: Floats, seen: NDArray[np.bool_], size: NDArray[Any] | None, where: str
    ) -> Floats:
        """Boxes as x1 y1 x2 y2 in fractions of the picture, ``(T, n, 4)``.

        Args:
            boxes: ``(T, n, 4)``.
            seen: ``(T, n)``, the boxes that count.
            size: ``(T, 2)`` or ``(1, 2)`` width and height in pixels, or None for `self.size`.
            where: Begins the message of an error.

        Raises:
            UserError: if the size is needed and not known, or the result lies outside the picture.
        """
        if size is None and self.size is not None:
            size = np.array([self.size])
        units = self.units or ("normalised" if size is None else "pixels")
        if units == "pixels" and size is None:
            raise UserError(
                f"{where}: boxes in pixels need the size of the picture (--image-size, or image_w, image_h)"
            )
        first, second = boxes[..., :2], boxes[..., 2:]
        if self.order == "y1 x1 y2 x2":
            first, second = first[..., ::-1], second[..., ::-1]
        elif self.order == "x y w h":
            second = first + second
        elif self.order == "cx cy w h":
            half = second / np.float32(2)
            first, second = first - half, first + half
        found = np.concatenate([first, second], axis=-1)
        if units == "pixels":
            assert size is not None
            found /= np.concatenate([size, size], axis=-1)[:, None].astype(np.float32)
        valid = found[seen]
        if valid.size and not (valid.min() >= -SLACK and valid.max() <= 1 + SLACK):
            raise UserError(
                f"{where}: boxes reach from {valid.min():.4g} to {valid.max():.4g} of the picture, expected 0 to 1 "
                f"(read as {self.order!r} in {units}; --box-order, --box-units and --image-size say otherwise)"
            )
        return found
