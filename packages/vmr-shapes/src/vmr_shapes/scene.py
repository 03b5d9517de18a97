"""The seeded scenario of a video: which things there are, what they do, and when.

A scene is decided without looking at any sentence: pixels and features cannot know what will be asked.
"""

from __future__ import annotations

import colorsys
import math
from collections import Counter
from dataclasses import dataclass, replace

from vmr_shapes.spec import (
    ACTIONS,
    COLOURS,
    SHAPES,
    SIZES,
    SLIDES,
    SPLITS,
    PortableRandom,
    ShapesSpec,
    split_video,
)

RADIUS = {"small": 4.6, "big": 7.6}
GROWTH = 1.5
LEAST_SLIDE = 13.0
MARGIN = 1.5
REST = 3  # frames that a thing rests between two of its actions, at least
TRIES = 8  # places that are tried for each action
ALONE = 2  # most events in progress at any time, beside the one being placed


@dataclass(frozen=True, kw_only=True)
class Thing:
    """A coloured shape. Sizes and places in pixels; `x`, `y` is its centre at the first frame."""

    colour: str
    shape: str
    size: str
    rgb: tuple[int, int, int]
    x: float
    y: float

    @property
    def radius(self) -> float:
        """Radius before it grows or shrinks."""
        return RADIUS[self.size]


@dataclass(frozen=True, kw_only=True)
class Event:
    """One action of one thing over the frames ``[first, last)``.

    `amount` is the distance in pixels of a slide, the factor of growing or shrinking, the whole turns of a
    spin (negative: anticlockwise), else 0.
    """

    thing: int
    action: str
    first: int
    last: int
    amount: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Scene:
    """A whole video before it is drawn.

    Events are in order of their start. The plain grey background brightens steadily from the first to the
    second level of `background`, as a morning does: time passes even where nothing happens, which is what
    tells models without a position code where in the video they are.
    """

    video: str
    split: str
    frames: int
    fps: int
    size: int
    background: tuple[int, int]
    things: tuple[Thing, ...]
    events: tuple[Event, ...]

    @property
    def duration(self) -> float:
        """Length of the video, seconds."""
        return self.frames / self.fps

    def moment(self, event: Event) -> tuple[float, float]:
        """Start and end of an event, seconds."""
        return event.first / self.fps, event.last / self.fps

    def combination(self, event: Event) -> tuple[str, str, str]:
        """Colour, shape and action of an event."""
        thing = self.things[event.thing]
        return thing.colour, thing.shape, event.action


def held_out_combinations(spec: ShapesSpec) -> frozenset[tuple[str, str, str]]:
    """The colour-shape-action triples that only test videos show: one action for each coloured shape."""
    draw = PortableRandom(spec.seed, 9001)
    pairs = [(colour, shape) for colour in COLOURS for shape in SHAPES]
    actions = [action for _ in range(len(pairs) // len(ACTIONS) + 1) for action in draw.shuffled(ACTIONS)]
    return frozenset((colour, shape, action) for (colour, shape), action in zip(pairs, actions, strict=False))


def make_scene(video: str, spec: ShapesSpec) -> Scene:
    """The scene of a video id, the same at every call.

    Raises:
        ValueError: if the data set has no such video.
    """
    split, number = split_video(video, spec)
    held_out = held_out_combinations(spec)
    for attempt in range(1000):
        scene = _try_scene(
            video, split, spec, held_out, PortableRandom(spec.seed, SPLITS.index(split), number, attempt)
        )
        if scene is not None:
            return scene
    raise ValueError(f"no scene fits the sizes of the spec: {spec}")


def _try_scene(
    video: str, split: str, spec: ShapesSpec, held_out: frozenset[tuple[str, str, str]], draw: PortableRandom
) -> Scene | None:
    rows = draw.integer(*(round(limit / spec.stride) for limit in spec.duration))
    frames = rows * spec.frames_per_row
    things = _things(spec, draw)
    slots = _slots(spec, len(things), frames, draw)
    scene = Scene(
        video=video,
        split=split,
        frames=frames,
        fps=spec.fps,
        size=spec.size,
        background=(draw.integer(110, 140), draw.integer(222, 246)),
        things=things,
        events=(),
    )
    if len(slots) < spec.events[0]:
        return None
    scene = replace(scene, events=_act(scene, slots, spec, held_out, draw))
    told_apart = Counter((scene.things[e.thing].size, *scene.combination(e)) for e in scene.events)
    enough = sum(count == 1 for count in told_apart.values()) >= spec.queries[0]
    return scene if enough else None


def _things(spec: ShapesSpec, draw: PortableRandom) -> tuple[Thing, ...]:
    """Different colours, but in one video of four two things share theirs: shape or size tells them apart."""
    count = draw.integer(*spec.things)
    colours = draw.shuffled(list(COLOURS))[:count]
    if count > 1 and draw.chance(0.25):
        colours[1] = colours[0]
    looks: list[tuple[str, str, str]] = []
    while len(looks) < count:
        look = (colours[len(looks)], draw.choice(SHAPES), draw.choice(SIZES))
        if look not in looks:
            looks.append(look)
    places: list[tuple[float, float]] = []
    for _, _, size in looks:
        places.append(_free_place(places, RADIUS[size] * GROWTH + MARGIN, spec.size, draw))
    return tuple(
        Thing(colour=colour, shape=shape, size=size, rgb=_rgb(colour, draw), x=x, y=y)
        for (colour, shape, size), (x, y) in zip(looks, places, strict=True)
    )


def _free_place(
    taken: list[tuple[float, float]], margin: float, size: int, draw: PortableRandom
) -> tuple[float, float]:
    """Of a few places the one farthest from what stands already."""
    options = [(draw.uniform(margin, size - margin), draw.uniform(margin, size - margin)) for _ in range(16)]
    return max(options, key=lambda p: min(((p[0] - x) ** 2 + (p[1] - y) ** 2 for x, y in taken), default=0.0))


def _rgb(colour: str, draw: PortableRandom) -> tuple[int, int, int]:
    hue = (COLOURS[colour] + draw.uniform(-8, 8)) % 360
    red, green, blue = colorsys.hsv_to_rgb(hue / 360, draw.uniform(0.72, 0.9), draw.uniform(0.8, 0.95))
    return round(red * 255), round(green * 255), round(blue * 255)


def _slots(spec: ShapesSpec, things: int, frames: int, draw: PortableRandom) -> list[tuple[int, int, int]]:
    """Times at which things act: ``(first, last, thing)``, by start. Lengths log-uniform, places uniform."""
    slots: list[tuple[int, int, int]] = []
    wanted = draw.integer(*spec.events)
    low, high = spec.moment
    for _ in range(max(60, TRIES * wanted)):
        if len(slots) == wanted:
            break
        length = round(frames * low * (high / low) ** draw.uniform())
        first = draw.integer(0, frames - length)
        last = first + length
        load = [sum(1 for s in slots if s[2] == thing) for thing in range(things)]
        free = [
            thing
            for thing in range(things)
            if all(last + REST <= s[0] or s[1] + REST <= first for s in slots if s[2] == thing)
        ]
        crowd = max((sum(s[0] <= t < s[1] for s in slots) for t in range(first, last)), default=0)
        if free and crowd <= ALONE:
            slots.append((first, last, min(draw.shuffled(free), key=lambda thing: load[thing])))
    return sorted(slots)


@dataclass
class _State:
    x: float
    y: float
    scale: float = 1.0


def _act(
    scene: Scene,
    slots: list[tuple[int, int, int]],
    spec: ShapesSpec,
    held_out: frozenset[tuple[str, str, str]],
    draw: PortableRandom,
) -> tuple[Event, ...]:
    """Fills the slots with actions that are possible from where each thing is by then."""
    states = [_State(thing.x, thing.y) for thing in scene.things]
    events: list[Event] = []
    for first, last, index in slots:
        thing = scene.things[index]
        possible = [a for a in ACTIONS if _possible(a, index, scene.things, states, spec.size)]
        unseen = [action for action in possible if (thing.colour, thing.shape, action) in held_out]
        if scene.split != "test":
            possible = [action for action in possible if action not in unseen]
        if scene.split == "test" and unseen and draw.chance(spec.held_out):
            action = unseen[0]
        else:
            action = _pick(possible, index, events, draw)
        event = Event(thing=index, action=action, first=first, last=last)
        room = _room(action, index, scene.things, states, spec.size) if action in SLIDES else 0.0
        events.append(_apply(event, states[index], room, draw))
    return tuple(events)


def _pick(possible: list[str], index: int, events: list[Event], draw: PortableRandom) -> str:
    """Prefers what another thing does in this video, and what this one has not done yet: distractors."""
    own = {event.action for event in events if event.thing == index}
    others = {event.action for event in events if event.thing != index}
    weights = [(2.5 if action in others else 1.0) * (0.25 if action in own else 1.0) for action in possible]
    return draw.choice(possible, weights)


def _reach(thing: Thing, state: _State) -> float:
    return thing.radius * max(state.scale, 1.0)


def _room(action: str, index: int, things: tuple[Thing, ...], states: list[_State], size: int) -> float:
    """Distance that a thing can slide before it meets the border or another thing where that stands by now."""
    own, state = _reach(things[index], states[index]), states[index]
    dx, dy = SLIDES[action]
    place = state.x if dx else state.y
    room = (size - place if dx + dy > 0 else place) - own - MARGIN
    for other in range(len(things)):
        ahead = (states[other].x - state.x) * dx + (states[other].y - state.y) * dy
        aside = abs((states[other].x - state.x) * dy) + abs((states[other].y - state.y) * dx)
        touch = own + _reach(things[other], states[other])
        if other != index and ahead > 0 and aside < 0.9 * touch:
            room = min(room, ahead - touch)
    return room


def _possible(action: str, index: int, things: tuple[Thing, ...], states: list[_State], size: int) -> bool:
    thing, state = things[index], states[index]
    if action in SLIDES:
        return _room(action, index, things, states, size) >= LEAST_SLIDE
    if action == "grow":
        reach = thing.radius * state.scale * GROWTH
        inside = reach + MARGIN <= min(state.x, state.y, size - state.x, size - state.y)
        gaps = (
            math.dist((state.x, state.y), (s.x, s.y)) - reach - _reach(t, s)
            for t, s in zip(things, states, strict=True)
            if t is not thing
        )
        return state.scale < GROWTH * 0.99 and inside and min(gaps, default=0.0) >= -MARGIN
    if action == "shrink":
        return state.scale > 0.99 / GROWTH
    return True


def _apply(event: Event, state: _State, room: float, draw: PortableRandom) -> Event:
    """Gives the event its amount and moves the state to the event's end."""
    if event.action in SLIDES:
        distance = max(LEAST_SLIDE, room * draw.uniform(0.7, 1.0))
        dx, dy = SLIDES[event.action]
        state.x, state.y = state.x + dx * distance, state.y + dy * distance
        return replace(event, amount=distance)
    if event.action in ("grow", "shrink"):
        factor = GROWTH if event.action == "grow" else 1 / GROWTH
        state.scale *= factor
        return replace(event, amount=factor)
    if event.action == "spin":
        turns = max(1, round((event.last - event.first) / 9))
        return replace(event, amount=float(turns if draw.chance(0.5) else -turns))
    return event
