"""Parts of the results page that are no training runs: search of a corpus, and presence."""

import statistics
from collections.abc import Sequence

from pages import ABSENT, table
from recording import RESULTS, read_rows

CORPUS = """Of all videos of a corpus, how often is the right video, or a right moment (overlap of 0.5), among the first
ones ([search.md](search.md))? *Annotated*: the one moment that the sentence was written for. *Graded*: every moment
that satisfies it, which only Shapes knows. Mean ± sample deviation over seeds."""
PRESENCE = """Does the video show the sentence at all ([metrics.md](metrics.md#no-such-moment-presence))? Every test
sentence is also asked of another video. AUROC of a score that says nothing is 0.5."""
FIGURES = {
    "R@1,IoU@0.5": "moment R@1",
    "R@10,IoU@0.5": "R@10",
    "R@100,IoU@0.5": "R@100",
    "video R@1": "video R@1",
    "video R@10": "R@10",
    "video R@100": "R@100",
}


def _measured(name: str) -> list[dict[str, str]]:
    path = RESULTS / name
    return read_rows(path) if path.is_file() else []


def _mean(values: Sequence[float]) -> str:
    mean = f"{statistics.fmean(values):.1f}"
    return f"{mean} ± {statistics.stdev(values):.1f}" if len(set(values)) > 1 else mean


def corpus() -> str | None:
    """Recall of moments and videos among those of a whole corpus, of `corpus_results.py`."""
    groups: dict[tuple[str, str, str, str, str], list[dict[str, str]]] = {}
    for row in _measured("corpus.csv"):
        name = row["what"] if row["system"] != "chance" else "chance"
        key = (row["split"], row["videos"], row["queries"], row["truth"], name)
        groups.setdefault(key, []).append(row)
    lines = []
    for (split, videos, queries, truth, name), rows in groups.items():
        seeds = list(dict.fromkeys(row["seed"] for row in rows))
        of = ABSENT if name == "chance" else ", ".join(seeds)
        figures = [_mean([float(row[figure]) for row in rows]) for figure in FIGURES]
        lines.append([f"{split}, {videos} videos, {queries} sentences", truth, name, of, *figures])
    if not lines:
        return None
    lines.sort(key=lambda line: line[:2])
    head = ["corpus", "truth", "", "seeds", *FIGURES.values()]
    return "\n\n".join(["## Search of a corpus", CORPUS, table(head, lines)])


def presence() -> str | None:
    """AUROC and recall at few false alarms of the models' presence scores, of `presence.py`."""
    rows = _measured("presence.csv")
    if not rows:
        return None
    lines = [
        [
            f"`{row['model']}`",
            row["split"],
            row["pairs"],
            f"{float(row['AUROC']):.2f} ({float(row['low']):.2f} to {float(row['high']):.2f})",
            f"{float(row['recall']):.2f}",
            f"{float(row['off']):.2f}" if row["probability"] == "yes" else f"{ABSENT} (says nothing)",
        ]
        for row in rows
    ]
    head = ["", "split", "pairs", "AUROC (95 %)", "recall at 5 % false alarms", "probabilities off by"]
    return "\n\n".join(["## Presence", PRESENCE, table(head, lines)])
