"""Frames of a video, as pictures or as one array, on which LEORN draws what it attended to."""

from __future__ import annotations

import io
import random
import struct
import zlib
from pathlib import Path

import numpy as np

from fuzzing.arrays import header, npy, plain
from fuzzing.case import Call, Case
from fuzzing.damage import damaged_bytes, flipped

VIDEO = "test-0000"
NAMES = ("0.png", "1.PNG", "2.jpg", "\x1b[2J.png", "é.jpeg", "3.png")


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(rng: random.Random, width: int, height: int) -> bytes:
    """A picture, or one that declares another size, depth or kind than it holds."""
    depth, kind = rng.choice(((8, 2), (8, 2), (8, 0), (16, 2), (8, 3), (8, 6), (1, 0), (99, 9)))
    raw = zlib.compress(b"".join(b"\0" + bytes(width * 3) for _ in range(min(height, 50))))
    parts = [chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, rng.choice((0, 0, 1))))]
    if rng.random() < 0.2:
        packed = zlib.compress(bytes(rng.choice((10, 50 << 20))))
        parts.append(chunk(rng.choice((b"zTXt", b"iCCP")), b"a\0\0" + packed))
    parts += [chunk(b"IDAT", raw), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def jpeg() -> bytes:
    from PIL import Image

    sink = io.BytesIO()
    Image.fromarray(np.full((20, 30, 3), 90, np.uint8)).save(sink, "JPEG")
    return sink.getvalue()


def picture(rng: random.Random, name: str) -> bytes:
    """The bytes of a picture that is often damaged."""
    size = rng.choice(((30, 20), (30, 20), (60_000, 60_000), (0, 5), (1, 1 << 31)))
    content = jpeg() if "jp" in name else png(rng, *size)
    kind = rng.random()
    if kind < 0.3:
        return damaged_bytes(rng, content)
    if kind < 0.5:
        return flipped(rng, content)
    if kind < 0.6:
        return rng.choice(
            (b"", b"GIF89a" + bytes(50), b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", bytes(999))
        )
    return content


def array(rng: random.Random) -> bytes:
    """The bytes of an array of frames that is often something else."""
    if rng.random() < 0.4:
        return npy(rng)
    if rng.random() < 0.3:
        return header(rng) + bytes(6 * 20 * 30 * 3)
    shape = rng.choice(
        ((6, 20, 30, 3), (6, 20, 30, 3), (0, 20, 30, 3), (6, 0, 30, 3), (6, 20, 30, 4), (1, 1, 1, 3), (6, 3))
    )
    return plain(np.zeros(shape, rng.choice(("u1", "u1", "i2", "f4"))))


def make(rng: random.Random, folder: Path, samples: Path) -> Case:
    """Frames of one video, and the command that draws on them."""
    place = folder / "frames"
    place.mkdir()
    if rng.random() < 0.4:
        (place / f"{VIDEO}.npy").write_bytes(array(rng))
    else:
        (place / VIDEO).mkdir()
        for name in rng.sample(NAMES, 3):
            (place / VIDEO / name).write_bytes(picture(rng, name))
    request = [
        "--video",
        VIDEO,
        "--query",
        "the red circle spins",
        "--frames",
        place,
        "--explain",
        folder / "out.png",
    ]
    data = ["--checkpoint", samples / "runs/leorn/tiny", "--data-root", samples / "data"]
    return Case([Call("leorn-predict", [*data, *request])])
