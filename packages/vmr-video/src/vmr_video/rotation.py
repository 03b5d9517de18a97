"""The rotation that a file asks for: phones store pictures as the sensor lies, and say how to turn them."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from av import VideoFrame

Filter = tuple[str, str]
_RIGHT_ANGLE = 90


def turns(picture: VideoFrame) -> list[Filter]:
    """The filters, name and arguments, that turn and mirror a picture as the file says: those of FFmpeg's program."""
    from av.sidedata.sidedata import Type

    data: Any = picture.side_data
    if not data or Type.DISPLAYMATRIX not in data:
        return []
    return list(_filters(struct.unpack("=9i", bytes(data[Type.DISPLAYMATRIX])[:36])))


def upright(picture: VideoFrame) -> tuple[int, int]:
    """Width and height of a picture once it is turned."""
    lying = sum(name == "transpose" for name, _ in turns(picture)) % 2
    return (picture.height, picture.width) if lying else (picture.width, picture.height)


def _filters(matrix: Sequence[int]) -> Iterator[Filter]:
    across, along = math.hypot(matrix[0], matrix[3]), math.hypot(matrix[1], matrix[4])
    if not across or not along:
        return
    angle = math.degrees(math.atan2(matrix[1] / along, matrix[0] / across)) % 360
    quarter = round(angle / _RIGHT_ANGLE)
    if abs(angle - _RIGHT_ANGLE * quarter) > 1:
        yield "rotate", f"{math.radians(angle)}"
    elif quarter % 4 == 1:
        yield "transpose", "cclock_flip" if matrix[3] > 0 else "clock"
    elif quarter % 4 == 2:
        if matrix[0] < 0:
            yield "hflip", ""
        if matrix[4] < 0:
            yield "vflip", ""
    elif quarter % 4 == 3:
        yield "transpose", "clock_flip" if matrix[3] < 0 else "cclock"
    elif matrix[4] < 0:
        yield "vflip", ""
