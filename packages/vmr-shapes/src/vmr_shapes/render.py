"""Draws scenes: all frames of a video at once, with soft edges, in arithmetic that is the same everywhere.

Per pixel only additions, multiplications, square roots and comparisons of float32 are used (exactly rounded
by IEEE 754), and a rounded table for the angles, so two machines give the same bytes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vmr_shapes.scene import Scene, Thing
from vmr_shapes.spec import SLIDES

ANGLES = 360
TABLE = np.array(
    [[round(4096 * f(math.radians(a))) / 4096 for f in (math.cos, math.sin)] for a in range(ANGLES)],
    np.float32,
)
SHAKE = (0.0, 2.6, 0.0, -2.6)  # pixels, frame by frame
BLINK = (False, False, True, True)
PRESENCE = 2  # frames that a thing is there before and after its action
CORNER = 1.3  # the farthest point of any outline, in radii
MARK_PLACE, MARK_RADIUS, MARK_SHADE = -0.5, 0.44, 0.35
Frames = NDArray[np.uint8]
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Track:
    """Place of a thing in each of F frames: centre, scale, angle (degrees) and if it shows; all ``(F,)``."""

    x: Floats
    y: Floats
    scale: Floats
    angle: NDArray[np.int64]
    visible: NDArray[np.bool_]


def track(scene: Scene, index: int) -> Track:
    """Plays the events of one thing; it comes shortly before each and goes shortly after."""
    thing = scene.things[index]
    x = np.full(scene.frames, thing.x)
    y = np.full(scene.frames, thing.y)
    scale = np.ones(scene.frames)
    angle = np.zeros(scene.frames, np.int64)
    visible = np.zeros(scene.frames, bool)
    own = [event for event in scene.events if event.thing == index]
    for event in own:
        visible[max(0, event.first - PRESENCE) : event.last + PRESENCE] = True
    for event in own:
        span = slice(event.first, event.last)
        step = np.arange(event.last - event.first)
        progress = (step + 1) / len(step)
        if event.action in SLIDES:
            for path, sign in zip((x, y), SLIDES[event.action], strict=True):
                path[span] += sign * event.amount * progress
                path[event.last :] += sign * event.amount
        elif event.action in ("grow", "shrink"):
            scale[span] *= 1 + (event.amount - 1) * progress
            scale[event.last :] *= event.amount
        elif event.action == "spin":
            angle[span] = np.rint(ANGLES * event.amount * progress).astype(np.int64) % ANGLES
        elif event.action == "blink":
            visible[span] &= np.array(BLINK)[step % len(BLINK)]
        elif event.action == "shake":
            x[span] += np.array(SHAKE)[(step + 1) % len(SHAKE)]
    return Track(x.astype(np.float32), y.astype(np.float32), scale.astype(np.float32), angle, visible)


def render(scene: Scene) -> Frames:
    """All frames of a scene, ``(F, size, size, 3)`` uint8 RGB; frame f shows the time from ``f / fps`` on."""
    pad = 4
    side = scene.size + 2 * pad
    first, last = scene.background
    level = np.rint(first + (last - first) * np.arange(scene.frames) / max(scene.frames - 1, 1))
    canvas = np.repeat(level.astype(np.uint8), side * side * 3).reshape(-1, 3)
    for index, thing in enumerate(scene.things):
        _draw(canvas, side, pad, thing, track(scene, index))
    frames = canvas.reshape(scene.frames, side, side, 3)
    return np.ascontiguousarray(frames[:, pad:-pad, pad:-pad])


def _draw(canvas: Frames, side: int, pad: int, thing: Thing, path: Track) -> None:
    """Blends one thing into the canvas ``(F * side * side, 3)``."""
    reach = math.ceil(thing.radius * CORNER * float(path.scale.max())) + 1
    shown = np.nonzero(path.visible)[0]
    path = Track(path.x[shown], path.y[shown], path.scale[shown], path.angle[shown], path.visible[shown])
    left = np.floor(path.x).astype(np.int64) - reach
    top = np.floor(path.y).astype(np.int64) - reach
    offsets = np.arange(2 * reach + 2)
    column, row = left[:, None] + offsets, top[:, None] + offsets  # (F, P)
    dx = (column + np.float32(0.5)).astype(np.float32) - path.x[:, None]
    dy = (row + np.float32(0.5)).astype(np.float32) - path.y[:, None]
    cos, sin = TABLE[path.angle].T[:, :, None]
    # the thing's own axes: u to its right, v downwards, both in pixels
    u = (dx * cos)[:, None, :] + (dy * sin)[:, :, None]
    v = (dy * cos)[:, :, None] - (dx * sin)[:, None, :]
    radius = (path.scale * np.float32(thing.radius))[:, None, None]
    cover = np.clip(np.float32(0.5) - _distance(thing.shape, u, v, radius), 0, 1)
    seen = cover > 0
    seen &= ((column + pad >= 0) & (column + pad < side))[:, None, :]
    seen &= ((row + pad >= 0) & (row + pad < side))[:, :, None]
    frame, i, j = np.nonzero(seen)
    pixel = (shown[frame] * side + row[frame, i] + pad) * side + column[frame, j] + pad
    radius = radius[frame, 0, 0]
    mark = _circle(u[seen], v[seen] - MARK_PLACE * radius, np.float32(MARK_RADIUS) * radius)
    shade = 1 - np.float32(1 - MARK_SHADE) * np.clip(np.float32(0.5) - mark, 0, 1)
    colour = shade[:, None] * np.array(thing.rgb, np.float32)
    weight = cover[seen][:, None]
    canvas[pixel] = np.rint(canvas[pixel] * (1 - weight) + colour * weight).astype(np.uint8)


def _circle(u: Floats, v: Floats, radius: Floats) -> Floats:
    distance: Floats = np.sqrt(u * u + v * v) - radius
    return distance


def _distance(shape: str, u: Floats, v: Floats, radius: Floats) -> Floats:
    """About how many pixels a point lies outside the outline (negative: inside)."""
    across, along = np.abs(u), np.abs(v)
    distance: Floats
    if shape == "circle":
        distance = _circle(u, v, radius)
    elif shape == "square":
        distance = np.maximum(across, along) - radius * np.float32(0.88)
    elif shape == "triangle":
        sides = across * np.float32(0.8660254) - v * np.float32(0.5)
        distance = np.maximum(sides, v) - radius * np.float32(0.62)
    else:
        star = np.maximum(across, along) + np.float32(2.2) * np.minimum(across, along)
        distance = (star - radius * np.float32(CORNER)) * np.float32(0.42)
    return distance
