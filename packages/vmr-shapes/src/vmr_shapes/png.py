"""One frame as a PNG file, with nothing but zlib."""

from __future__ import annotations

import struct
import zlib

import numpy as np
from numpy.typing import NDArray


def png_bytes(frame: NDArray[np.uint8]) -> bytes:
    """Encodes an RGB frame losslessly.

    Args:
        frame: ``(H, W, 3)`` uint8.

    Returns:
        The bytes of a PNG file.

    Raises:
        ValueError: if shape or dtype differ.
    """
    if frame.ndim != 3 or frame.shape[2] != 3 or 0 in frame.shape or frame.dtype != np.uint8:
        raise ValueError(f"a frame must be (H, W, 3) uint8, found {frame.shape} {frame.dtype}")
    height, width = frame.shape[:2]
    rows = np.zeros((height, 1 + 3 * width), np.uint8)  # a leading 0 per row: no filter
    rows[:, 1:] = frame.reshape(height, -1)
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)  # 8 bits, RGB
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows.tobytes(), 9)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(name, data) for name, data in chunks)


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
