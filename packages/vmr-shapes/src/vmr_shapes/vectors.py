"""Small seeded word vectors for the grammar's words: what a large corpus would teach about them, and no more.

Forms and synonyms of one meaning lie close together, meanings of one kind (colours, shapes, ...) a little
closer than chance. Nothing else enters: the vectors are made from the lexicon alone.
"""

from __future__ import annotations

import math

from vmr_shapes.language import ADJECTIVES, ANYTHING, GO, NOUNS, PLACES, VERBS, vocabulary
from vmr_shapes.spec import COLOURS, PortableRandom, ShapesSpec

KIND, FORM, SCALE = 0.35, 0.4, 0.45
EXTRA = {"bigger": "grow", "smaller": "shrink", "starts": "begin", "begins": "begin"}


def word_table(spec: ShapesSpec) -> str:
    """The vectors of all words in GloVe's text form, one ``word v1 ... vD`` a line."""
    meanings, kinds = _meanings(), _kinds()
    draw = PortableRandom(spec.seed, 9004)

    def gaussian() -> list[float]:
        # four uniforms are normal enough, and the same on every machine
        return [float(v) for v in (draw.array(spec.word_dim, 4).sum(axis=1) - 2) * math.sqrt(3)]

    def drawn(names: set[str]) -> dict[str, list[float]]:
        return {name: gaussian() for name in sorted(names)}

    of_kind, of_meaning = drawn(set(kinds.values())), drawn(set(meanings.values()))
    lines = []
    for word in vocabulary():
        meaning = meanings[word]
        kind = of_kind.get(kinds.get(meaning, ""), [0.0] * spec.word_dim)
        values = [
            SCALE * (KIND * k + m + FORM * f)
            for k, m, f in zip(kind, of_meaning[meaning], gaussian(), strict=True)
        ]
        lines.append(" ".join([word, *(f"{value:.4f}" for value in values)]))
    return "\n".join(lines) + "\n"


def _meanings() -> dict[str, str]:
    """Word to meaning; a word that is not listed means itself."""
    meanings = {word: word for word in vocabulary()}
    for table in (NOUNS, ADJECTIVES):
        for meaning, words in table.items():
            meanings.update(dict.fromkeys(words, meaning))
    meanings.update({form: "go" for forms in GO for form in forms})
    for action, phrasings in VERBS.items():
        for forms in phrasings:
            meanings.update({form: action for form in forms if " " not in form})
            meanings.update({form.split()[0]: "get" for form in forms if " " in form})
    meanings.update({"upwards": "up", "downwards": "down", **EXTRA})
    return meanings


def _kinds() -> dict[str, str]:
    """Meaning to kind, for the meanings that come in kinds."""
    groups = {
        "colour": COLOURS,
        "thing": (*NOUNS, ANYTHING),
        "size": ADJECTIVES,
        "place": PLACES,
        "deed": (*VERBS, "go"),
    }
    return {meaning: kind for kind, group in groups.items() for meaning in group}
