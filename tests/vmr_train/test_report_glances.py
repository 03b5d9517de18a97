"""Reports of splits that have glances and no moments, or neither: nothing is said that nobody knows."""

import dataclasses

import pytest

from report_toy import Page, full_report, predictions, queries
from vmr_common.evaluation import protocol
from vmr_train.report import choose_queries
from vmr_train.report.analysis import judged
from vmr_train.report.compare import compare
from vmr_train.report.compare_page import render_comparison
from vmr_train.report.json_form import from_json, to_json
from vmr_train.report.page import render

GLANCES = [dataclasses.replace(query, moments=[]) for query in queries()]
HIDDEN = [dataclasses.replace(query, glance=None) for query in GLANCES]
WHY = "no recall: mine has glances and no moments"


def report_of(asked, guesses, rules=()):
    """The report of a run whose training had no moments either."""
    tables = [(name, [("x", protocol(name).score(asked, guesses))]) for name in rules]
    return full_report(queries=asked, predictions=guesses, tables=tables, bias=None, remarks=[WHY])


def test_queries_are_drawn_by_their_distance_from_the_glance():
    guesses = predictions(GLANCES)
    shown = choose_queries(GLANCES, guesses, 20)
    distance = dict(
        zip(
            (q.id for q in GLANCES),
            protocol("glance").per_query(GLANCES, guesses)["distance,mean"],
            strict=True,
        )
    )
    assert [one.distance for one in shown] == pytest.approx([distance[one.query.id] for one in shown])
    best = [one.distance for one in shown if one.group == "best"]
    worst = [one.distance for one in shown if one.group == "worst"]
    assert (best, worst) == (sorted(distance.values())[:6], sorted(distance.values())[:-7:-1])
    assert (
        judged(GLANCES, guesses).hits.mean()
        == protocol("glance").score(GLANCES, guesses).values["R@1,glance"]
    )
    assert {one.group for one in choose_queries(HIDDEN, guesses, 20)} == {"random"}


@pytest.mark.parametrize(("asked", "rules"), [(GLANCES, ["glance"]), (HIDDEN, [])])
def test_the_page_is_complete_and_speaks_of_no_overlap(asked, rules):
    guesses = predictions(asked)[1:]
    report = report_of(asked, guesses, rules)
    again = from_json(to_json(report), history=report.history, predictions=guesses)
    text = render(again)
    page = Page(text)
    assert text == render(dataclasses.replace(report, frames=None, strips=again.strips, draw=None))
    assert WHY in page.text
    assert not [part for part in ("R@1 at IoU", "IoU 0.00", "nan") if part in page.text]
    assert "truth" not in page.values("class")
    assert ("First prediction nearest to the glance." in page.text) == bool(rules)
    assert ("distance, median" in page.text) == bool(rules)


def test_runs_on_glances_are_compared_by_their_distance():
    first, second = predictions(GLANCES), predictions(GLANCES, seed=2)
    runs = [report_of(GLANCES, guesses, ["glance"]) for guesses in (first, second)]
    found = compare(*runs, ("a", "b"))
    own, other = (judged(GLANCES, guesses) for guesses in (first, second))
    best = found.won(1)[0]
    assert best.values[0] - best.values[1] == pytest.approx((own.values - other.values).max())
    assert found.found()[(True, True)] == int((own.hits & other.hits).sum())
    text = Page(render_comparison(*runs, ("a", "b"), found)).text
    assert "middle is nearer to the glance by more than 0.05 of the video" in text
    assert "IoU" not in text
