"""The grammar: which events of a scene are asked for, and in which words."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from vmr_shapes.scene import Event, Scene
from vmr_shapes.spec import COLOURS, SPLITS, PortableRandom, ShapesSpec, split_video

NOUNS = {
    "circle": ("circle", "disc"),
    "square": ("square", "box"),
    "triangle": ("triangle",),
    "star": ("star",),
}
ADJECTIVES = {"small": ("small", "little"), "big": ("big", "large")}
ANYTHING = "shape"
GO = (("slides", "slide", "sliding"), ("moves", "move", "moving"))
# for each action its phrasings: third person, base form, participle
VERBS: dict[str, tuple[tuple[str, str, str], ...]] = {
    "spin": (("spins", "spin", "spinning"), ("rotates", "rotate", "rotating")),
    "grow": (("grows", "grow", "growing"), ("gets bigger", "get bigger", "getting bigger")),
    "shrink": (("shrinks", "shrink", "shrinking"), ("gets smaller", "get smaller", "getting smaller")),
    "blink": (("blinks", "blink", "blinking"), ("flashes", "flash", "flashing")),
    "shake": (("shakes", "shake", "shaking"), ("wobbles", "wobble", "wobbling")),
}
PLACES = {
    "left": ("left", "to the left"),
    "right": ("right", "to the right"),
    "up": ("up", "upwards"),
    "down": ("down", "downwards"),
}
COMPOSED = 0.2  # share of sentences that need a second event
NEAR = 40  # seconds between an event and the one that it is placed by, at most
# which attributes a sentence names, and how often it does
NAMED: tuple[tuple[tuple[str, ...], float], ...] = (
    (("colour", "shape"), 0.62),
    (("size", "colour", "shape"), 0.2),
    (("colour",), 0.09),
    (("shape",), 0.09),
)

Order = Literal["after", "before"]


@dataclass(frozen=True, kw_only=True)
class Clause:
    """An event as a clause describes it: `action` and the named attributes of the thing, such as its colour."""

    action: str
    looks: tuple[tuple[str, str], ...]
    """Named attributes and their values, in the order of `NAMED`."""

    def fits(self, scene: Scene, event: Event) -> bool:
        """True if the event is one that the clause describes."""
        thing = scene.things[event.thing]
        return event.action == self.action and all(
            getattr(thing, name) == value for name, value in self.looks
        )


@dataclass(frozen=True, kw_only=True)
class Meaning:
    """All that a sentence asks for, whatever its words: an event, perhaps placed by a second one, its anchor."""

    main: Clause
    order: Order | None = None
    """Where the event lies beside its anchor, see `in_order`; None without an anchor."""
    anchor: Clause | None = None


@dataclass(frozen=True, kw_only=True)
class Sentence:
    """A sentence and the one event of its scene that it describes."""

    text: str
    event: Event
    meaning: Meaning


def vocabulary() -> list[str]:
    """Every token that the grammar can produce, sorted."""
    words = {"the", "a", "is", "starts", "begins", "to", "after", "before", ",", ANYTHING, *COLOURS}
    for phrases in (*NOUNS.values(), *ADJECTIVES.values(), *PLACES.values(), *GO, *_flat(VERBS.values())):
        words.update(word for phrase in phrases for word in phrase.split())
    return sorted(words)


def _flat(verbs: Iterable[tuple[tuple[str, str, str], ...]]) -> Iterable[tuple[str, str, str]]:
    return (forms for phrasings in verbs for forms in phrasings)


def sentences(scene: Scene, spec: ShapesSpec) -> list[Sentence]:
    """Sentences for different events of a scene, by start of their moments; each fits exactly one event."""
    split, number = split_video(scene.video, spec)
    draw = PortableRandom(spec.seed, spec.sentence_seed, 9003, SPLITS.index(split), number)
    wanted = draw.integer(*spec.queries)
    found: list[Sentence] = []
    for event in draw.shuffled(scene.events):
        if len(found) == wanted:
            break
        sentence = _describe(scene, event, draw)
        if sentence is not None:
            found.append(sentence)
    return sorted(found, key=lambda s: (s.event.first, s.event.thing))


def _describe(scene: Scene, event: Event, draw: PortableRandom) -> Sentence | None:
    if draw.chance(COMPOSED):
        sentence = _compose(scene, event, draw)
        if sentence is not None:
            return sentence
    names = _names(scene, event, _matches_anywhere(scene, event), draw)
    if names is None:
        return _compose(scene, event, draw)  # twice the same: only the order can tell them apart
    meaning = Meaning(main=_meant(scene, event, names))
    return Sentence(text=_simple(scene, event, names, draw), event=event, meaning=meaning)


def _compose(scene: Scene, event: Event, draw: PortableRandom) -> Sentence | None:
    """Places an event by a near one that is over before it starts, or that starts when it is over."""
    for anchor in draw.shuffled(scene.events):
        after = anchor.last <= event.first
        if not in_order(scene, event, "after" if after else "before", anchor):
            continue
        anchor_names = _names(scene, anchor, _matches_anywhere(scene, anchor), draw)
        rivals = [
            e
            for e in scene.events
            if (e.first >= anchor.last if after else e.last <= anchor.first) and e != event
        ]
        names = _names(scene, event, [e for e in rivals if e.action == event.action], draw)
        if anchor_names is None or names is None:
            continue
        word: Order = "after" if after else "before"
        main, side = (_clause(scene, e, n, draw) for e, n in ((event, names), (anchor, anchor_names)))
        text = f"{word} {side}, {main}" if draw.chance(0.5) else f"{main} {word} {side}"
        clauses = _meant(scene, event, names), _meant(scene, anchor, anchor_names)
        meaning = Meaning(main=clauses[0], order=word, anchor=clauses[1])
        return Sentence(text=text, event=event, meaning=meaning)
    return None


def in_order(scene: Scene, event: Event, order: Order, anchor: Event) -> bool:
    """True if one of the two events is over before the other starts, in this order, and they lie near each other."""
    gap = event.first - anchor.last if order == "after" else anchor.first - event.last
    return 0 <= gap <= NEAR * scene.fps


def _matches_anywhere(scene: Scene, event: Event) -> list[Event]:
    return [e for e in scene.events if e.action == event.action and e != event]


def _names(scene: Scene, event: Event, rivals: list[Event], draw: PortableRandom) -> tuple[str, ...] | None:
    """Attributes that tell the event's thing from those of its rivals, or None where none do."""
    thing = scene.things[event.thing]
    fitting = [
        (names, weight)
        for names, weight in NAMED
        if not any(all(getattr(scene.things[r.thing], n) == getattr(thing, n) for n in names) for r in rivals)
    ]
    if not fitting:
        return None
    return draw.choice([names for names, _ in fitting], [weight for _, weight in fitting])


def _meant(scene: Scene, event: Event, names: tuple[str, ...]) -> Clause:
    thing = scene.things[event.thing]
    return Clause(action=event.action, looks=tuple((name, getattr(thing, name)) for name in names))


def _noun_phrase(
    scene: Scene, event: Event, names: tuple[str, ...], article: str, draw: PortableRandom
) -> str:
    thing = scene.things[event.thing]
    words = [article]
    if "size" in names:
        words.append(_mostly_first(ADJECTIVES[thing.size], draw))
    if "colour" in names:
        words.append(thing.colour)
    words.append(_mostly_first(NOUNS[thing.shape], draw) if "shape" in names else ANYTHING)
    return " ".join(words)


def _mostly_first(options: tuple[str, ...], draw: PortableRandom) -> str:
    return options[0] if len(options) == 1 or draw.chance(0.7) else options[1]


def _verb(action: str, form: int, draw: PortableRandom) -> str:
    if action in PLACES:
        return f"{draw.choice(GO, (0.7, 0.3))[form]} {_mostly_first(PLACES[action], draw)}"
    return draw.choice(VERBS[action], (0.7, 0.3))[form]


def _clause(scene: Scene, event: Event, names: tuple[str, ...], draw: PortableRandom) -> str:
    return f"{_noun_phrase(scene, event, names, 'the', draw)} {_verb(event.action, 0, draw)}"


def _simple(scene: Scene, event: Event, names: tuple[str, ...], draw: PortableRandom) -> str:
    form = draw.choice(("plain", "starts", "is"), (0.6, 0.22, 0.18))
    subject = _noun_phrase(scene, event, names, "a" if draw.chance(0.12) else "the", draw)
    if form == "plain":
        return f"{subject} {_verb(event.action, 0, draw)}"
    if form == "starts":
        return f"{subject} {draw.choice(('starts', 'begins'))} to {_verb(event.action, 1, draw)}"
    return f"{subject} is {_verb(event.action, 2, draw)}"
