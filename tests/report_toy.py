"""A report of random predictions for random queries, and a reader of pages."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np

from vmr_common import Prediction, Query
from vmr_common.evaluation import protocol
from vmr_train.report import Curve, Report, choose_queries, write_report

VOID = {"meta", "img", "input", "br", "hr", "link"}
HOSTILE = (
    """</p><script>alert("x")</script><img src=http://evil.example/x.png onerror='a()'>"""
    """ & "quoted" 'too' \x00\ud800"""
)


class Page(HTMLParser):
    """Checks the nesting while it reads, and collects what the tests ask for."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.cells: list[str] = []
        self.source = text
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len({name for name, _ in attrs}) == len(attrs), f"an attribute of {tag} is given twice"
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "td":
            self.cells.append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in {"style", "script"}:
            self.texts.append(data)
        if "td" in self.open:
            self.cells[-1] += data

    def values(self, attribute: str) -> list[str]:
        return [attrs[attribute] or "" for _, attrs in self.tags if attribute in attrs]

    def count(self, tag: str, **wanted: str) -> int:
        return sum(name == tag and wanted.items() <= attrs.items() for name, attrs in self.tags)

    @property
    def text(self) -> str:
        return " ".join(self.texts)


def queries(number: int = 60, seed: int = 0) -> list[Query]:
    rng = np.random.default_rng(seed)
    made = []
    for row in range(number):
        duration = float(rng.uniform(10, 40))
        start, end = np.sort(rng.uniform(0, duration, 2))
        made.append(
            Query(
                id=f"q{row}",
                video=f"video_{row // 3}",
                text=f"sentence number {row}",
                duration=duration,
                moments=[[start, end]],
                glance=float(rng.uniform(start, end)),
            )
        )
    return made


def predictions(made: list[Query], seed: int = 1, k: int = 5) -> list[Prediction]:
    rng = np.random.default_rng(seed)
    return [
        Prediction(
            query=query.id,
            video=query.video,
            moments=np.sort(rng.uniform(0, query.duration, (k, 2)), axis=1),
            scores=np.sort(rng.uniform(0, 1, k))[::-1],
        )
        for query in made
    ]


def frames(video: str) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(len(video))
    return rng.integers(0, 255, (20, 24, 24, 3), dtype=np.uint8), np.arange(20) * 2.0


def history(updates: int = 500) -> list[dict]:
    rows: list[dict] = []
    for update in range(1, updates + 1):
        place = {
            "update": update,
            "epoch": 1 + (update - 1) // 100,
            "lr": 1e-3 / update,
            "seconds": update * 0.1,
        }
        terms = {"train/total": 3.0 / update, "train/hinge <b>": 1.0}
        rows.append({"kind": "interval", **place, "grad_norm": None, **terms})
        if update % 100 == 0:
            metrics = {"R@1,IoU@0.5": 0.001 * update, "R@5,IoU@0.5": 0.6, "R@1,mIoU": 0.3}
            values = {f"validation/{key}": value for key, value in metrics.items()}
            rows.append({"kind": "epoch", **place, **terms, **values, "selected": update < 400})
    return rows


def full_report(**changes: object) -> Report:
    made = queries()
    guesses, bias = predictions(made)[:-2], predictions(made, seed=2)
    rows = [(name, protocol("strict").score(made, p)) for name, p in (("rgn", guesses), ("bias", bias))]
    shown = choose_queries(made, guesses)
    times = np.linspace(0, 40, 50)
    report = Report(
        title="rgn on shapes/test",
        facts={"seed": "17", "date": "2026-01-02"},
        warnings=["Be careful: this is a warning"],
        command="uv run rgn-train --seed 17",
        bias_window="0 to 35 % of the video",
        tables=[("Strict rules", rows)],
        history=history(),
        queries=made,
        predictions=guesses,
        bias=bias,
        curves={
            s.query.id: [Curve(name="re-glance", times=times, values=np.exp(-((times - 5) ** 2)))]
            for s in shown
        },
        frames=frames,
    )
    return dataclasses.replace(report, **changes)


def page(report: Report, folder: Path) -> Page:
    write_report(folder / "report.html", report)
    return Page((folder / "report.html").read_text(encoding="utf-8"))


def run_command(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    program = "import sys; from vmr_train.cli.report import main; sys.exit(main())"
    return subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)], capture_output=True, text=True, check=False
    )
