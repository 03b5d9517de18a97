"""Object features of rendered videos: connected components, followed over time, described by their pixels alone.

For every feature row (two frames) a few slots, each with a box, a confidence and statistics of the pixels inside:
colour, size, outline, a small crop, and how the patch changes from frame to frame. Nothing here knows the scene, the
sentences or the palette.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from leorn.object_features.layouts import ObjectFrames
from leorn.object_features.shapes_components import Doubles, Ints, Patches, find_patches
from vmr_shapes.pixels import HUES, UNIT, around_rows

OBJECTS = 5  # slots per frame
CROP = 4  # per side
MEMORY = 4  # frames after which a slot forgets the patch that was in it
FAR, OTHER = 14.0, 0.5  # pixels per frame and sixths of the hue circle that a patch moves by at most
HALF = 20.0  # covered pixels at which the confidence is one half
# what soft edges do to each motion of a thing at rest, in the order of `_motions`
NOISE = (0.01, 0.03, 0.03, 0.004, 0.04, 0.04, 0.008, 0.0)
# kinds of statistics: columns, what is taken off them and what they are multiplied by. Round numbers that bring each
# kind near zero and one; a feature is brought to length 1 later, and one kind must not drown the others
COLUMNS: dict[str, tuple[int, tuple[float, ...], float]] = {
    "colour": (3, (0.4,), 1.0),
    "hues": (HUES, (0.0,), 1.0),
    "size": (4, (0.8, 0.7, 0.7, 0.7), 1.0),
    "place": (4, (0.5, 0.5, 0.3, 0.3), 0.5),
    "outline": (7, (0.0, 0.0, 0.2, 0.5, 1.5, 0.5, 0.5), 1.0),
    "crop": (CROP * CROP, (0.5,), 0.3),
    "presence": (1, (0.0,), 0.5),
    "motion": (11, (0.0,), 2.0),
    "light": (1, (0.7,), 0.5),
}
DIM = sum(columns for columns, _, _ in COLUMNS.values())


def object_frames(frames: NDArray[np.uint8], frames_per_row: int) -> ObjectFrames:
    """The objects of a video, one object frame per `frames_per_row` frames.

    A patch keeps its slot for as long as it is followed, and one that comes new takes the lowest free slot: the
    order says nothing about what a patch is. Boxes and confidences are those of the last frame of the row in which
    the slot holds a patch.

    Args:
        frames: ``(F, H, W, 3)`` uint8 RGB, H = W.
        frames_per_row: Frames that an object frame stands for; motion also looks two frames before and after.

    Returns:
        Features ``(T, OBJECTS, DIM)``, confidences ``(T, OBJECTS)`` and boxes ``(T, OBJECTS, 4)``, x1 y1 x2 y2 as
        fractions of the frame, with ``T = F // frames_per_row``; zeros where a slot is empty.
    """
    patches = find_patches(frames)
    looks = _looks(frames, patches)
    slots = follow(patches.frame, looks["x"][:, 0], looks["y"][:, 0], looks["hue"][:, 0], looks["mass"][:, 0])
    video = _Video(len(frames), frames.shape[1], frames_per_row, patches.frame, slots)
    return _assemble(video, looks, _light(frames))


@dataclass(frozen=True)
class _Video:
    """Places of the patches of a video: frame and slot (-1: none) of each, both ``(M,)``."""

    frames: int
    size: int
    per_row: int
    frame: Ints
    slot: Ints

    def spread(self, values: Doubles) -> Doubles:
        """Values of patches ``(M, C)`` by frame and slot, ``(F, OBJECTS, C)``; 0 where there is no patch."""
        table = np.zeros((self.frames, OBJECTS, values.shape[1]))
        kept = self.slot >= 0
        table[self.frame[kept], self.slot[kept]] = values[kept]
        return table

    def rows(self, values: Doubles) -> Doubles:
        """Frames ``(F, ...)`` grouped by row, ``(T, per_row, ...)``."""
        count = self.frames // self.per_row
        return values[: count * self.per_row].reshape(count, self.per_row, *values.shape[1:])


def follow(frame: Ints, x: Doubles, y: Doubles, hue: Doubles, mass: Doubles) -> Ints:
    """Gives each patch a slot such that the same thing keeps its own, ``(M,)``; -1 where all are taken.

    Large patches choose first, each the nearest slot that held something of about its hue not long ago.

    Args:
        frame: ``(M,)`` frame of each patch, rising.
        x: ``(M,)`` middles, pixels.
        y: Likewise.
        hue: Sixths of the hue circle.
        mass: Covered pixels.
    """
    slots = np.full(len(frame), -1)
    held: list[tuple[int, float, float, float] | None] = [None] * OBJECTS  # frame, x, y, hue
    order = np.lexsort((-mass, frame)).tolist()
    when, across, along, tone = (values.tolist() for values in (frame, x, y, hue))
    for patch in order:
        now = when[patch]
        best, least = -1, 1.0
        for slot, last in enumerate(held):
            if last is None or last[0] == now or now - last[0] > MEMORY:
                continue
            gap = abs(tone[patch] - last[3])
            apart = np.hypot(across[patch] - last[1], along[patch] - last[2]) / (FAR * (now - last[0]))
            cost = max(apart, min(gap, 6 - gap) / OTHER)
            if cost < least:
                best, least = slot, cost
        if best < 0:
            free = (slot for slot, last in enumerate(held) if last is None or now - last[0] > MEMORY)
            best = next(free, -1)
        if best >= 0:
            held[best] = (now, across[patch], along[patch], tone[patch])
            slots[patch] = best
    return slots


def _looks(frames: NDArray[np.uint8], patches: Patches) -> dict[str, Doubles]:
    """Appearance of each patch in its frame, ``(M, C)`` each; places and sizes in pixels."""
    frame, row, column = patches.place
    total, owner, count = patches.total, patches.owner, patches.count
    weight = patches.saturation  # a soft edge counts as far as it covers its pixel
    mass = total(weight)
    x, y = (total(weight * (v + 0.5)) / mass for v in (column, row))
    u, v = column + 0.5 - x[owner], row + 0.5 - y[owner]
    channels = frames[frame, row, column].astype(np.float64) / 255  # (N, 3)
    bright = channels.max(axis=1)
    light = total(bright)
    spread = np.sqrt(np.maximum(total(weight * (u * u + v * v)) / mass, 0.25))
    square_u, square_v, mixed = u * u - v * v, 2 * u * v, u * u + v * v
    outline = [
        total(weight * square_u) / (mass * spread**2),
        total(weight * square_v) / (mass * spread**2),
        np.hypot(total(weight * (u * square_u - v * square_v)), total(weight * (u * square_v + v * square_u)))
        / (mass * spread**3),
        np.hypot(total(weight * (square_u**2 - square_v**2)), total(weight * 2 * square_u * square_v))
        / (mass * spread**4),
        total(weight * mixed**2) / (mass * spread**4),
        spread / np.sqrt(mass),
    ]
    left, top, right, bottom = box = _boxes(patches)
    wide, high = right - left, bottom - top
    outline.append(mass / (wide * high))
    before = frames[np.maximum(frame - 1, 0), row, column].astype(np.float64) / 255
    tone = patches.hue * HUES / 6
    below = np.floor(tone).astype(np.int64) % HUES
    part = tone - np.floor(tone)
    hues = np.bincount(owner * HUES + below, weight * (1 - part), count * HUES)
    hues += np.bincount(owner * HUES + (below + 1) % HUES, weight * part, count * HUES)
    angle = patches.hue * (np.pi / 3)
    hue = np.arctan2(total(weight * np.sin(angle)), total(weight * np.cos(angle))) * (3 / np.pi) % 6
    cell_x = ((column - left[owner]) * CROP / wide[owner]).astype(np.int64)
    cell_y = ((row - top[owner]) * CROP / high[owner]).astype(np.int64)
    crop = np.bincount((owner * CROP + cell_y) * CROP + cell_x, bright, count * CROP * CROP)
    return {
        "mass": mass[:, None],
        "x": x[:, None],
        "y": y[:, None],
        "hue": hue[:, None],
        "box": np.stack(box, axis=1),
        "colour": np.stack([total(weight * channel) / mass for channel in channels.T], axis=1),
        "hues": hues.reshape(count, HUES) / mass[:, None],
        "outline": np.stack(outline, axis=1),
        "crop": crop.reshape(count, CROP * CROP) * (CROP * CROP / (wide * high))[:, None],
        "mark": np.stack([total(bright * u), total(bright * v)], axis=1) / (light * np.sqrt(mass))[:, None],
        "stir": total(np.abs(channels - before).sum(axis=1))[:, None] / np.sqrt(mass)[:, None],
    }


def patch_boxes(frame: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The boxes ``(M, 4)`` of the things in a frame ``(H, W, 3)``: x1 y1 x2 y2 as fractions of it."""
    corners = np.stack(_boxes(find_patches(frame[None])), axis=1)
    return (corners / len(frame)).astype(np.float32)


def _boxes(patches: Patches) -> tuple[Doubles, Doubles, Doubles, Doubles]:
    """Left, top, right and bottom edges of each patch, pixels, ``(M,)`` each."""
    edges = []
    for values in patches.place[[2, 1]]:
        low, high = np.full(patches.count, np.iinfo(np.int64).max), np.full(patches.count, -1)
        np.minimum.at(low, patches.owner, values)
        np.maximum.at(high, patches.owner, values)
        edges.append((low.astype(np.float64), high + 1.0))
    (left, right), (top, bottom) = edges
    return left, top, right, bottom


def _light(frames: NDArray[np.uint8]) -> Doubles:
    """The background's brightness in each frame, ``(F,)``: most pixels are background, and so is the median."""
    plain: Doubles = np.median(frames[..., 1].reshape(len(frames), -1), axis=1) / 255
    return plain


def _assemble(video: _Video, looks: dict[str, Doubles], light: Doubles) -> ObjectFrames:
    table = {name: video.spread(values) for name, values in looks.items()}  # (F, OBJECTS, C)
    here = table["mass"][..., 0] > 0  # (F, OBJECTS)
    shown = video.rows(here.astype(np.float64))  # (T, per_row, OBJECTS)
    often = shown.sum(axis=1)[..., None]  # (T, OBJECTS, 1)

    def mean(values: Doubles) -> Doubles:
        return np.asarray(video.rows(values).sum(axis=1) / np.maximum(often, 1))

    box = table["box"] / video.size
    wide, high = box[..., 2] - box[..., 0], box[..., 3] - box[..., 1]
    middle = np.concatenate([table["x"], table["y"]], axis=-1) / video.size
    radius = np.sqrt(table["mass"]) / 10
    parts = {
        "colour": mean(table["colour"]),
        "hues": mean(table["hues"]),
        "size": mean(np.concatenate([radius, radius**2, 3 * wide[..., None], 3 * high[..., None]], axis=-1)),
        "place": mean(np.concatenate([middle, middle**2], axis=-1)),
        "outline": mean(table["outline"]),
        "crop": mean(table["crop"]),
        "presence": often / video.per_row,
        "motion": _motions(video, table, here),
        "light": np.broadcast_to(video.rows(light).mean(axis=1)[:, None, None], often.shape),
    }
    scaled = [(parts[name] - np.array(centre)) * weight for name, (_, centre, weight) in COLUMNS.items()]
    features = np.rint(np.concatenate(scaled, axis=-1) * UNIT) / UNIT * (often > 0)
    last = video.per_row - 1 - shown[:, ::-1].argmax(axis=1)  # (T, OBJECTS)

    def latest(values: Doubles) -> Doubles:
        return np.take_along_axis(video.rows(values), last[:, None, :, None], axis=1)[:, 0]

    mass = latest(table["mass"])[..., 0]
    confidence = mass / (mass + HALF)
    return ObjectFrames(*(part.astype(np.float32) for part in (features, confidence, latest(box))))


def _motions(video: _Video, table: dict[str, Doubles], here: NDArray[np.bool_]) -> Doubles:
    """Change of each slot's patch around each row, ``(T, OBJECTS, 11)``, slow motion lifted beside fast."""
    both = here[1:] & here[:-1]

    def change(name: str) -> Doubles:
        return np.where(both[..., None], np.diff(table[name], axis=0), 0)

    dx, dy = change("x")[..., 0], change("y")[..., 0]
    turn = np.abs(change("mark")).sum(axis=-1)
    growth = np.where(both, np.diff(np.sqrt(table["mass"][..., 0]), axis=0), 0)
    flash = (here[1:] != here[:-1]) * 1.0
    stir = np.where(both, table["stir"][1:, :, 0] / 10, 0)
    changes = (stir, dx, dy, growth, np.abs(dx), np.abs(dy), turn, flash)
    stir, dx, dy, growth, across, along, turn, flash = (around_rows(v, video.per_row) for v in changes)
    sway = (across - np.abs(dx), along - np.abs(dy))
    moves = [
        np.sign(v) * np.sqrt(np.maximum(np.abs(v) - noise, 0))
        for v, noise in zip((stir, dx, dy, growth, *sway, turn, flash), NOISE, strict=True)
    ]
    signed = [part for v in moves[1:4] for part in (np.maximum(v, 0), np.maximum(-v, 0))]
    return np.stack([moves[0], *signed, *moves[4:]], axis=-1)
