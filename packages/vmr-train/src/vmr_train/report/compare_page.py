"""The page that compares two runs: ``templates/compare.html``, filled."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from vmr_common.evaluation.paired import Difference
from vmr_train.report.analysis import GLANCE, MOMENT, Target
from vmr_train.report.cards import about, plays
from vmr_train.report.charts import MOST_DIFFERENCE, difference_bar
from vmr_train.report.compare import MARGIN, Comparison, Pair
from vmr_train.report.data import Report, Shown
from vmr_train.report.glossary import GLOSSARY
from vmr_train.report.kinds import SMALL, Group
from vmr_train.report.page import environment, script
from vmr_train.report.strips import film_strips
from vmr_train.report.tables import HEADLINES, difference, figure
from vmr_train.report.timelines import pair_timeline

SECTIONS = {
    "results": "Differences",
    "kinds": "By kind of query",
    "queries": "Query by query",
    "words": "Words",
}
GROUPS = {
    "second": ("B wins", "The largest gains."),
    "first": ("A wins", "The largest losses of B."),
    "right": ("Both right", "Ties that both find best."),
    "wrong": ("Both wrong", "Ties that both miss furthest."),
}
WORDS = {
    MOMENT: ("IoU", "R@1, IoU 0.5", "mIoU", "protocol", "95 % interval"),
    GLANCE: ("glance", "R@1, glance", "distance", "protocol", "95 % interval"),
}


def render_comparison(first: Report, second: Report, names: tuple[str, str], found: Comparison) -> str:
    """The whole page as HTML text.

    Args:
        first: Run A, whose `frames`, `videos` and `shown` are used.
        second: Run B.
        names: What the page calls them, such as their folders.
        found: Their comparison.
    """
    wins = {side: found.won(by) for side, by in (("second", 1), ("first", -1), ("ties", 0))}
    chosen = list(_chosen(wins, first.shown))
    return (
        environment()
        .get_template("compare.html")
        .render(
            title=f"{names[0]} and {names[1]}",
            names=names,
            sections=SECTIONS,
            groups=GROUPS,
            script=script(),
            facts=_facts(first, second),
            protocol=found.protocol,
            target=found.target,
            what=_what(found.target),
            margin=MARGIN,
            most=f"{MOST_DIFFERENCE * 100:.0f}",
            small=SMALL,
            rows=[_row(name, found.differences[name]) for name in _names(found.differences)],
            counts={side: len(pairs) for side, pairs in wins.items()},
            hits=found.found(),
            total=len(found.pairs),
            kinds=[
                (kind.title, kind.about, [_group_row(*row) for row in rows]) for kind, rows in found.kinds
            ],
            cards=_cards(first, second, found.target, chosen),
            videos=first.videos,
            words={word: GLOSSARY[word] for word in WORDS[found.target]},
        )
    )


def _what(target: Target) -> tuple[str, str]:
    """The rule by which a first prediction wins, and the one by which it is right, in words."""
    if target is GLANCE:
        return "middle is nearer to the glance", "Holding the glance"
    return "IoU is higher", "At IoU 0.5"


def _names(differences: Mapping[str, Difference]) -> list[str]:
    """The values to show: the headlines first, then the others."""
    return list(dict.fromkeys([*(name for name in HEADLINES if name in differences), *differences]))


def _facts(first: Report, second: Report) -> list[tuple[str, str, str, bool]]:
    """The facts of both runs, and whether they are the same."""
    names = dict.fromkeys([*first.facts, *second.facts])
    rows = [(name, first.facts.get(name, ""), second.facts.get(name, "")) for name in names]
    return [("title", first.title, second.title, first.title == second.title)] + [
        (name, a, b, a == b) for name, a, b in rows
    ]


def _row(name: str, found: Difference) -> dict[str, Any]:
    falling = name.startswith("distance")  # lower is better, and a bar points to what is better
    ends = (-found.high, -found.low) if falling else (found.low, found.high)
    return {
        "name": name.replace("IoU@", "IoU ").replace(",", ", "),
        "first": figure(found.first),
        "second": figure(found.second),
        "bar": difference_bar(-found.difference if falling else found.difference, *ends),
        "difference": difference(found.difference),
        "interval": _interval(found, 2),
        "verdict": _verdict(found, falling),
    }


def _verdict(found: Difference, falling: bool) -> str:
    """The better run, in words; `falling`: lower figures are better."""
    if found.low <= 0 <= found.high:
        return "not told apart"
    return "B is better" if (found.low > 0) != falling else "A is better"


def _group_row(group: Group, recall: Difference, mean: Difference) -> dict[str, Any]:
    return {
        "label": group.label,
        "small": group.small,
        "count": f"{len(group.rows):,}",
        "bar": difference_bar(recall.difference, recall.low, recall.high),
        "recall": difference(recall.difference, 1),
        "recall_interval": _interval(recall, 1),
        "mean": difference(mean.difference, 1),
        "mean_interval": _interval(mean, 1),
    }


def _interval(found: Difference, decimals: int) -> str:
    return f"{difference(found.low, decimals)} to {difference(found.high, decimals)}"


def _chosen(wins: Mapping[str, Sequence[Pair]], count: int) -> Iterator[tuple[str, Pair]]:
    each = -(-count // len(GROUPS))
    ties = sorted(wins["ties"], key=lambda pair: -sum(pair.nearness))
    right = [pair for pair in ties if min(pair.nearness) > 0][:each]
    wrong = [pair for pair in ties[::-1] if pair not in right][:each]
    for group, pairs in (
        ("second", wins["second"][:each]),
        ("first", wins["first"][:each]),
        ("right", right),
        ("wrong", wrong),
    ):
        for pair in pairs:
            yield group, pair


def _cards(
    first: Report, second: Report, target: Target, chosen: Sequence[tuple[str, Pair]]
) -> list[dict[str, Any]]:
    shown = [Shown(query=pair.query, prediction=None, iou=0.0, group="random") for _, pair in chosen]
    strips = film_strips(second, shown) | film_strips(first, shown)
    cards = []
    for row, (group, pair) in enumerate(chosen):
        query, (a, b) = pair.query, map(target.shown, pair.values)
        words = (
            f"Video of {query.duration:.1f} s; {target.figure} of the first prediction {a} (A) and {b} (B)."
        )
        cards.append(
            {
                **about(query, strips.get(query.id, ()), first.videos),
                "group": group,
                "figures": (a, b),
                "timeline": pair_timeline(f"q{row}", query, pair.first, pair.second, words),
                "plays": list(plays(query, {"A": pair.first, "B": pair.second}, first.videos)),
            }
        )
    return cards
