"""Pictures of frames with boxes on them, strong ones for what a model attends to, as PNG files."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageDraw

from vmr_train.report.strips import png, shrink

Frame = NDArray[np.uint8]
COLOUR = (255, 224, 0)
FAINT = 0.2  # opacity of the line of a box of strength 0
SHADOW = 0.6  # opacity of the dark line around each box, in that of the box: it shows on a thing of like colour too
LEAST = 0.02  # boxes weaker than this are left out
GAP = 4  # pixels between the frames of a strip


def draw_boxes(
    frame: Frame,
    boxes: ArrayLike,
    strength: ArrayLike,
    *,
    colour: tuple[int, int, int] = COLOUR,
) -> Frame:
    """A copy of a frame with boxes whose lines are the wider and the clearer the stronger they are.

    Args:
        frame: ``(H, W, 3)`` uint8.
        boxes: ``(n, 4)`` x1 y1 x2 y2 as fractions of the frame; what lies outside is cut off.
        strength: ``(n,)`` in [0, 1]; the strongest is drawn last, and below 0.02 nothing is drawn.
        colour: Red, green, blue.

    Raises:
        ValueError: if the shapes do not fit.
    """
    places, strengths = np.asarray(boxes, np.float64), np.asarray(strength, np.float64)
    if frame.ndim != 3 or frame.shape[2] != 3 or places.shape != (len(strengths), 4):
        raise ValueError(
            f"expected a frame (H, W, 3), boxes (n, 4) and strengths (n,), "
            f"found {frame.shape}, {places.shape} and {strengths.shape}"
        )
    picture = Image.fromarray(frame)
    # what lies far outside of the frame is as well drawn near it
    corners = np.rint(np.nan_to_num(places).clip(-1, 2) * (picture.size * 2)).astype(int)
    for number in np.argsort(strengths, kind="stable"):
        force = float(np.clip(strengths[number], 0, 1))
        if force < LEAST:
            continue
        left, top, right, bottom = corners[number].tolist()
        if right <= left or bottom <= top:  # no object in this slot
            continue
        line = max(1, round(min(picture.size) / 100 * (1 + 2 * force)))
        opacity = FAINT + (1 - FAINT) * force
        _outline(picture, (left - 1, top - 1, right + 1, bottom + 1), 1, opacity * SHADOW, (0, 0, 0))
        _outline(picture, (left, top, right, bottom), line, opacity, colour)
    return np.array(picture)


def _outline(
    picture: Image.Image,
    edges: tuple[int, int, int, int],
    line: int,
    opacity: float,
    colour: tuple[int, int, int],
) -> None:
    """Blends a rectangle's outline into the picture, `line` pixels to the inside."""
    left, top, right, bottom = edges
    least = min(right - left, bottom - top)
    if least > 0:
        mask = Image.new("L", picture.size)
        box = (left, top, right - 1, bottom - 1)
        ImageDraw.Draw(mask).rectangle(box, outline=round(255 * opacity), width=min(line, (least + 1) // 2))
        picture.paste(colour, mask=mask)


def resize(frame: Frame, height: int) -> Frame:
    """A frame about `height` pixels high: large ones averaged down, small ones with every pixel repeated.

    Small frames grow by whole factors, so that their pixels stay squares; the result is then at most `height` high.
    """
    factor = max(1, height // frame.shape[0])
    return shrink(frame, height) if factor == 1 else frame.repeat(factor, axis=0).repeat(factor, axis=1)


def box_strip(
    frames: NDArray[np.uint8], boxes: ArrayLike, strength: ArrayLike, *, height: int = 168, columns: int = 8
) -> bytes:
    """Frames side by side with their boxes, as one PNG file.

    Args:
        frames: ``(F, H, W, 3)`` uint8, in order of time; at least one.
        boxes: ``(F, n, 4)`` as of `draw_boxes`.
        strength: ``(F, n)`` as of `draw_boxes`: relative to what is strongest is up to the caller.
        height: Pixels that a frame is about high.
        columns: Most frames side by side; more go to further rows.

    Raises:
        ValueError: if the shapes do not fit, or there is no frame.
    """
    places, strengths = np.asarray(boxes, np.float64), np.asarray(strength, np.float64)
    if not len(frames) or not len(frames) == len(places) == len(strengths):
        raise ValueError(
            f"expected as many frames as boxes and strengths, found {len(frames)}, {len(places)}, {len(strengths)}"
        )
    drawn = [
        draw_boxes(resize(frame, height), b, s) for frame, b, s in zip(frames, places, strengths, strict=True)
    ]
    high, wide = drawn[0].shape[:2]
    columns = min(columns, len(drawn))
    rows = -(-len(drawn) // columns)
    sheet = np.full((rows * (high + GAP) - GAP, columns * (wide + GAP) - GAP, 3), 255, np.uint8)
    for number, picture in enumerate(drawn):
        top, left = (number // columns) * (high + GAP), (number % columns) * (wide + GAP)
        sheet[top : top + high, left : left + wide] = picture
    return png(sheet)
