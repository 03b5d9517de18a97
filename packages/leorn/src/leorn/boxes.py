"""Pictures of frames with boxes on them, strong ones for what a model attends to: PNG files with numpy alone."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vmr_shapes.png import png_bytes
from vmr_train.report.strips import shrink

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
    picture = frame.copy()
    height, width = frame.shape[:2]
    scale = np.array([width, height, width, height])
    for number in np.argsort(strengths, kind="stable"):
        force = float(np.clip(strengths[number], 0, 1))
        if force < LEAST:
            continue
        left, top, right, bottom = np.rint(places[number] * scale).astype(int).tolist()
        line = max(1, round(min(height, width) / 100 * (1 + 2 * force)))
        opacity = FAINT + (1 - FAINT) * force
        _outline(picture, (left - 1, top - 1, right + 1, bottom + 1), 1, opacity * SHADOW, (0, 0, 0))
        _outline(picture, (left, top, right, bottom), line, opacity, colour)
    return picture


def _outline(
    picture: Frame,
    edges: tuple[int, int, int, int],
    line: int,
    opacity: float,
    colour: tuple[int, int, int],
) -> None:
    """Blends a rectangle's outline into the picture, `line` pixels to the inside."""
    height, width = picture.shape[:2]
    left, top, right, bottom = edges
    inside = np.zeros((height, width), bool)
    inside[max(top, 0) : max(bottom, 0), max(left, 0) : max(right, 0)] = True
    inner = slice(max(top + line, 0), max(bottom - line, 0)), slice(max(left + line, 0), max(right - line, 0))
    inside[inner] = False
    mixed = picture[inside] * (1 - opacity) + np.array(colour) * opacity
    picture[inside] = np.rint(mixed).astype(np.uint8)


def resize(frame: Frame, height: int) -> Frame:
    """A frame about `height` pixels high: large ones averaged down, small ones with every pixel repeated.

    Small frames grow by whole factors, so that their pixels stay squares; the result is then at most `height` high.
    """
    factor = max(1, height // frame.shape[0])
    if factor == 1:
        return shrink(frame, height)
    return np.repeat(np.repeat(frame, factor, axis=0), factor, axis=1)


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
    return png_bytes(sheet)
