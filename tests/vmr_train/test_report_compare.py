"""Two runs on one page: the same queries, differences with intervals, and whoever wins which query."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from report_toy import HOSTILE, Page, full_report, predictions, queries, run_command
from vmr_common import Prediction, Query, UserError
from vmr_common.evaluation import protocol
from vmr_common.evaluation.paired import paired_differences
from vmr_common.types import write_predictions
from vmr_train.report import Report, save_report
from vmr_train.report.compare import MARGIN, compare
from vmr_train.report.compare_page import render_comparison

NAMES = ("runs/a", "runs/b")


def scored(made: list[Query], guesses: list[Prediction], **changes: object) -> Report:
    tables = [("strict", [("x", protocol("strict").score(made, guesses))])]
    return Report(title="x on y", queries=made, predictions=guesses, tables=tables, **changes)


def test_differences_are_those_of_the_paired_bootstrap():
    made = queries()
    first, second = predictions(made), predictions(made, seed=2)
    found = compare(scored(made, first), scored(made[::-1], second), NAMES)
    values = [protocol("strict").per_query(made, guesses) for guesses in (first, second)]
    wanted = paired_differences(values[0], values[1], [q.video for q in made], draws=1000)
    assert found.differences == wanted
    again = compare(scored(made, second), scored(made, first), NAMES).differences
    assert all(again[key].difference == pytest.approx(-wanted[key].difference) for key in wanted)


def test_every_query_is_won_lost_or_tied():
    made = queries()
    first, second = predictions(made), predictions(made, seed=2)
    second[:5] = first[:5]
    found = compare(scored(made, first), scored(made, second), NAMES)
    gains = [pair.values[1] - pair.values[0] for pair in found.pairs]
    assert len(found.won(1)) == sum(gain > MARGIN for gain in gains)
    assert len(found.won(-1)) == sum(gain < -MARGIN for gain in gains)
    assert len(found.won(0)) >= 5
    assert sum(len(found.won(by)) for by in (-1, 0, 1)) == len(made) == sum(found.found().values())
    best = found.won(1)[0]
    assert best.values[1] - best.values[0] == max(gains)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda made: made[1:], r"only runs/a has 'q0'"),
        (lambda made: [*made, dataclasses.replace(made[0], id="more")], r"only runs/b has 'more'"),
        (lambda made: [dataclasses.replace(made[0], text="else"), *made[1:]], "the sentence of 'q0' differs"),
        (
            lambda made: [dataclasses.replace(made[0], moments=[[0, 1]]), *made[1:]],
            "the moment of 'q0' differs",
        ),
    ],
)
def test_runs_on_other_queries_are_refused(change, message):
    made, other = queries(), change(queries())
    with pytest.raises(UserError, match=r"other queries: runs/a on 60, runs/b on \d+; .*" + message):
        compare(scored(made, predictions(made)), scored(other, predictions(other)), NAMES)


def test_the_page_is_well_formed_and_hostile_text_stays_text():
    made = [dataclasses.replace(q, text=HOSTILE, video=HOSTILE + q.video) for q in queries()]
    first, second = scored(made, predictions(made)), scored(made, predictions(made, seed=2)[:-3])
    first = dataclasses.replace(first, facts={HOSTILE: HOSTILE})
    names = (HOSTILE, HOSTILE)
    found = Page(render_comparison(first, second, names, compare(first, second, names)))
    assert found.count("script") == 1
    assert 30 < found.count("article") <= 40
    assert "B no prediction" in found.texts
    assert all(value.startswith("#") for value in found.values("href"))
    assert not [name for _, attrs in found.tags for name in attrs if name.startswith("on")]
    ids = found.values("id")
    assert len(set(ids)) == len(ids)


@pytest.mark.e2e
def test_the_command_compares_two_runs(tmp_path):
    made = queries()
    for name, seed in (("a", 1), ("b", 2)):
        guesses = predictions(made, seed=seed)
        (tmp_path / name).mkdir()
        save_report(tmp_path / name, full_report(predictions=guesses))
        write_predictions(tmp_path / name / "predictions.jsonl", guesses)
    page = tmp_path / "both.html"
    done = run_command(tmp_path / "a", tmp_path / "b", "--out", page, "--queries", "8")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{page}\n", "")
    found = Page(page.read_text(encoding="utf-8"))
    assert found.count("article") == 8
    assert found.count("img") > 0
    assert not np.isnan([float(v.replace("%", "")) for v in found.values("width") if v[0].isdigit()]).any()
    (tmp_path / "b" / "report.json").unlink()
    done = run_command(tmp_path / "a", tmp_path / "b", "--out", page)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: ")
