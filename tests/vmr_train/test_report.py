"""The report: one file that is well formed, complete, true to its input and safe, whatever that holds."""

from __future__ import annotations

import dataclasses
import json
import math
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from report_toy import HOSTILE, Page, full_report, history, page, predictions, queries, run_command
from vmr_common import Prediction, Query, UserError
from vmr_common.evaluation import Scores
from vmr_common.io import write_json_lines
from vmr_common.types import write_predictions
from vmr_train.report import Curve, Report, choose_queries, load_report, save_report, write_report
from vmr_train.report.analysis import (
    loss_series,
    metric_series,
    moment_ious,
    rank_ious,
    selected_epoch,
)
from vmr_train.report.json_form import from_json, to_json
from vmr_train.report.page import MOST_CHARTS, render
from vmr_train.report.strips import BUDGET, shrink, thumbnails

DASH, MINUS = "\N{EN DASH}", "\N{MINUS SIGN}"


def test_a_full_report_is_well_formed_and_loads_nothing(tmp_path):
    found = page(full_report(), tmp_path)
    assert not {tag for tag, _ in found.tags} & {"link", "iframe", "object", "embed", "base", "form"}
    assert found.count("script") == 1
    assert all(value.startswith("#") for value in found.values("href"))
    assert all(value.startswith("data:image/png;base64,") for value in found.values("src"))
    source = re.sub('data:image/png;base64,[^"]*', "", found.source)
    assert not re.search(r"https?:|@import|url\(|//[a-z]", source)
    assert not [name for _, attrs in found.tags for name in attrs if name.startswith("on")]


def test_ids_are_unique_and_every_reference_to_one_exists(tmp_path):
    found = page(full_report(), tmp_path)
    ids = found.values("id")
    assert len(set(ids)) == len(ids)
    named = " ".join(found.values("aria-labelledby") + found.values("aria-describedby")).split()
    assert set(named) <= set(ids)
    assert {value[1:] for value in found.values("href")} <= set(ids)


def test_every_picture_has_a_title_and_a_description(tmp_path):
    found = page(full_report(), tmp_path)
    pictures = found.count("svg", role="img")
    assert pictures >= 40 + 6
    assert found.count("title") == pictures + 1
    assert found.count("desc") == pictures
    hidden = [attrs for tag, attrs in found.tags if tag == "svg" and attrs.get("role") != "img"]
    assert all("aria-hidden" in attrs or attrs.get("class") == "free" or "width" in attrs for attrs in hidden)


def test_the_policy_lets_only_our_own_script_run(tmp_path):
    found = page(full_report(), tmp_path)
    policy = next(attrs["content"] for _, attrs in found.tags if "http-equiv" in attrs)
    assert policy.startswith("default-src 'none';")
    assert re.search(r"script-src 'sha256-[A-Za-z0-9+/=]+'$", policy)


def test_hostile_text_stays_text_everywhere(tmp_path):
    made = [
        Query(id=HOSTILE, video=HOSTILE, text=HOSTILE, duration=10.0, moments=[[1, 4]], glance=2.0),
        *queries(3),
    ]
    guesses = [Prediction(query=HOSTILE, video=HOSTILE, moments=[[1, 3]], scores=[1.0])]
    scores = Scores(
        protocol=HOSTILE,
        compare=HOSTILE,
        split=HOSTILE,
        num_queries=1,
        num_missing=0,
        values={"R@1,IoU@0.5": 0.5, HOSTILE: 0.1},
    )
    report = Report(
        title=HOSTILE,
        facts={HOSTILE: HOSTILE},
        warnings=[HOSTILE],
        command=HOSTILE,
        bias_window=HOSTILE,
        tables=[(HOSTILE, [(HOSTILE, scores)])],
        history=[
            {"kind": "interval", "update": 1, f"train/{HOSTILE}": 1.0},
            {"kind": "epoch", "epoch": 1, f"validation/{HOSTILE}": 0.5},
        ],
        queries=made,
        predictions=guesses,
        curves={HOSTILE: [Curve(name=HOSTILE, times=np.arange(3.0), values=np.ones(3))]},
    )
    found = page(report, tmp_path)
    assert found.count("script") == 1
    assert found.count("img") == 0
    assert not [name for _, attrs in found.tags for name in attrs if name.startswith("on")]
    assert '</p><script>alert("x")</script>' in found.text
    assert "\x00" not in found.source


def test_the_tables_hold_exactly_the_given_scores(tmp_path):
    values = {"R@1,IoU@0.3": 0.12344, "R@1,IoU@0.5": 1.0, "R@5,IoU@0.5": math.nan, "R@1,mIoU": 0.07}
    model = Scores(
        protocol="strict", compare="IoU >= m", split="a/test", num_queries=1234, num_missing=5, values=values
    )
    bias = dataclasses.replace(model, values=dict.fromkeys(values, 0.1))
    found = page(Report(title="t", tables=[("T", [("mine", model), ("bias", bias)])]), tmp_path)
    assert found.cells == [
        *["", ""],
        *["12.34", "100.00", DASH, "7.00"],
        *["10.00"] * 4,
        *["+2.34", "+90.00", DASH, MINUS + "3.00"],
    ]
    assert "1,234 queries, 5 without prediction" in found.text
    assert "IoU ≥ m" in found.text
    assert "a/test" in found.text


def test_heading_shows_facts_command_warnings_and_missing_predictions(tmp_path):
    found = page(full_report(), tmp_path)
    for text in ("17", "2026-01-02", "uv run rgn-train --seed 17", "Be careful:", "0 to 35 % of the video"):
        assert any(text in part for part in found.texts), text
    assert "without prediction" in found.texts
    assert found.texts[found.texts.index("without prediction") + 1] == "2"


@pytest.mark.parametrize("chosen", [False, True])
def test_selection_on_test_is_labelled(tmp_path, chosen):
    found = page(full_report(selected_on_test=chosen), tmp_path)
    assert ("Selected on test:" in found.text) == chosen


def test_all_chosen_queries_are_drawn_with_their_iou(tmp_path):
    report = full_report()
    found = page(report, tmp_path)
    shown = choose_queries(report.queries, report.predictions)
    assert len(shown) == 40
    assert found.count("article") == 40
    for item in shown:
        assert f"“{item.query.text}”" in found.texts
        assert f"Timeline of query {item.query.id}" in found.texts
        assert f"{item.iou:.2f}" in found.texts
    assert found.count("path", **{"class": "ridge"}) == 40 + 1  # one more in the legend
    assert found.count("img") == 40 * 10


def test_choice_takes_best_worst_and_random_without_repeating():
    made = queries(100)
    guesses = predictions(made)
    shown = choose_queries(made, guesses, count=40, seed=3)
    ious = dict(zip([q.id for q in made], rank_ious(made, guesses), strict=True))
    ranked = sorted(ious.values(), reverse=True)
    groups = {g: [s for s in shown if s.group == g] for g in ("best", "worst", "random")}
    assert [len(groups[g]) for g in ("best", "worst", "random")] == [12, 12, 16]
    assert len({s.query.id for s in shown}) == 40
    assert [s.iou for s in groups["best"]] == ranked[:12]
    assert [s.iou for s in groups["worst"]] == ranked[::-1][:12]
    again = choose_queries(made, guesses, count=40, seed=3)
    assert [s.query.id for s in shown] == [s.query.id for s in again]
    other = choose_queries(made, guesses, count=40, seed=4)
    assert {s.query.id for s in shown} != {s.query.id for s in other}


@pytest.mark.parametrize("number", [0, 1, 2, 3, 7])
@pytest.mark.parametrize("count", [0, 1, 2, 5, 40])
def test_choice_never_gives_more_than_there_are(number, count):
    made = queries(number)
    shown = choose_queries(made, predictions(made), count=count)
    assert len({s.query.id for s in shown}) == len(shown) == min(number, count)


def test_choice_leaves_out_queries_without_truth():
    made = [*queries(2), Query(id="hidden", video="v", text="t", duration=5.0)]
    assert {s.query.id for s in choose_queries(made, predictions(made))} == {"q0", "q1"}


@pytest.mark.parametrize(
    "changes",
    [
        {"queries": [], "predictions": [], "bias": None, "curves": {}, "tables": []},
        {"predictions": []},
        {"bias": None},
        {"bias": []},
        {"curves": {}, "frames": None},
        {"history": []},
        {"history": [{"kind": "interval"}, {"kind": "other"}, {}, {"kind": "epoch", "epoch": None}]},
        {
            "history": [
                {"kind": "interval", "update": 1, "train/a": math.nan, "train/b": None, "train/c": "x"}
            ]
        },
        {"history": [{"kind": "interval", "update": 5, "train/a": 0.0}]},
        {"history": [{"kind": "epoch", "epoch": 1, "update": 9, "validation/R@1,IoU@0.5": None}]},
        {"tables": [("empty", [])]},
        {"frames": lambda video: None},
        {"shown": 0},
    ],
    ids=lambda changes: " and ".join(changes),
)
def test_whatever_is_absent_the_page_is_whole(tmp_path, changes):
    found = page(full_report(**changes), tmp_path)
    assert {"results", "training", "kinds", "queries"} <= set(found.values("id"))
    assert "nan" not in re.findall(r'="(nan|inf|[\d.]*nan%?)"', found.source)


def test_a_title_alone_makes_a_page(tmp_path):
    found = page(Report(title="only this"), tmp_path)
    assert "only this" in found.texts


def test_strange_records_are_drawn_without_failing(tmp_path):
    made = [
        Query(
            id="late", video="v", text="ends after the video", duration=10.0, moments=[[8, 14]], glance=13.0
        ),
        Query(
            id="reversed",
            video="v",
            text="ends before it starts",
            duration=10.0,
            moments=[[6, 2]],
            as_annotated=True,
        ),
        Query(
            id="nan",
            video="v",
            text="not a number",
            duration=10.0,
            moments=[[math.nan, 4]],
            glance=math.nan,
            as_annotated=True,
        ),
        Query(id="two", video="v", text="two moments", duration=7200.0, moments=[[100, 200], [4000, 4600]]),
        Query(id="none", video="v", text="no moments predicted", duration=0.01, moments=[[0, 0.005]]),
    ]
    guesses = [
        Prediction(query="late", video="v", moments=[[-3, 20], [5, 5]], scores=[math.nan, -math.inf]),
        Prediction(query="reversed", video="v", moments=[[9, 1]], scores=[1e9]),
        Prediction(query="nan", video="v", moments=[[math.nan, math.inf]], scores=[0]),
        Prediction(query="two", video="v", moments=[[4000, 4600]], scores=[1e-7]),
        Prediction(query="none", video="v", moments=[], scores=[]),
        Prediction(query="unknown", video="v", moments=[[0, 1]], scores=[0]),
    ]
    curve = Curve(name="c", times=np.arange(6.0), values=np.array([0, math.nan, 2, 0.5, -1, 0.2]))
    found = page(
        Report(
            title="t", queries=made, predictions=guesses, bias=guesses, curves={"late": [curve], "two": []}
        ),
        tmp_path,
    )
    assert found.count("article") == 5
    assert "no prediction" in found.texts
    assert not re.search(r'="[^"]*\b(nan|inf)\b[^"]*%?"', re.sub(r'data-find="[^"]*"', "", found.source))
    assert "1:00:00" in found.texts


def test_iou_takes_the_best_of_several_truths_and_zero_for_nothing():
    made = [Query(id="a", video="v", text="t", duration=10, moments=[[0, 2], [4, 8]]), *queries(1)]
    guess = Prediction(query="a", video="v", moments=[[4, 6], [0, 2]], scores=[2, 1])
    assert rank_ious(made, [guess]).tolist() == [0.5, 0.0]
    assert moment_ious(guess.moments, made[0].moments).tolist() == [0.5, 1.0]


def test_many_updates_become_a_line_with_a_band_and_no_value_is_lost():
    rows = [{"kind": "interval", "update": n, "train/a": float(n % 7)} for n in range(1, 1001)]
    (series,) = loss_series(rows, points=100)
    assert len(series.x) == 100
    assert series.x[-1] == 1000
    np.testing.assert_allclose(series.y.mean(), np.mean([n % 7 for n in range(1, 1001)]))
    assert series.low is not None
    assert series.high is not None
    assert (series.low.min(), series.high.max()) == (0, 6)


def test_updates_repeated_after_a_resume_count_once_with_the_last_value():
    pairs = ((1, 1.0), (2, 2.0), (2, 5.0), (3, 3.0))
    (series,) = loss_series([{"kind": "interval", "update": n, "train/a": value} for n, value in pairs])
    assert (series.x.tolist(), series.y.tolist()) == ([1, 2, 3], [1, 5, 3])


def test_short_runs_draw_their_losses_from_the_epochs():
    (series,) = loss_series([{"kind": "epoch", "update": 7, "epoch": 1, "train/total": 2.0}])
    assert (series.name, series.x.tolist(), series.y.tolist()) == ("total", [7], [2])


def test_metrics_are_grouped_by_rank_with_miou_last():
    values = {
        "validation/R@1,mIoU": 0.2,
        "validation/R@1,IoU@0.5": 0.1,
        "validation/mAP": 0.3,
        "test/mAP": 0.4,
    }
    groups = metric_series([{"kind": "epoch", "epoch": 1, **values}])
    assert [(key, [s.name for s in lines]) for key, lines in groups.items()] == [
        ("R@1", ["IoU 0.5"]),
        ("mAP", ["mAP"]),
        ("mIoU", ["R@1"]),
    ]


def test_the_selected_epoch_is_the_last_that_says_so(tmp_path):
    assert selected_epoch(history()) == 3
    assert selected_epoch([]) is None
    assert page(full_report(), tmp_path).texts.count("selected") == 3


def test_test_metrics_by_epoch_label_the_selection(tmp_path):
    rows = [{"kind": "epoch", "epoch": 1, "update": 1, "test/R@1,IoU@0.5": 0.5, "selected": True}]
    assert "Selected on test:" in page(full_report(history=rows), tmp_path).text


def test_curves_must_have_one_value_per_time():
    with pytest.raises(ValueError, match="curve 'c'"):
        Curve(name="c", times=np.zeros(3), values=np.zeros(4))


def test_thumbnails_follow_the_time_axis():
    import base64
    import io

    from PIL import Image

    images = np.zeros((40, 6, 6, 3), np.uint8) + np.arange(40, dtype=np.uint8)[:, None, None, None]
    strip = thumbnails(images, np.arange(40) * 0.5, end=20.0)
    assert len(strip) == 10
    for place, image in enumerate(strip):
        expected = images[round((place + 0.5) * 4)]  # every 2 s, from 1 s on; frames every 0.5 s
        with Image.open(io.BytesIO(base64.b64decode(image.partition(",")[2]))) as found:
            assert np.array_equal(np.asarray(found), expected)


def test_thumbnails_are_small_and_keep_the_mean_colour():
    rng = np.random.default_rng(0)
    frame = rng.integers(0, 255, (240, 427, 3), dtype=np.uint8)
    small = shrink(frame)
    assert small.shape == (96, 171, 3)
    assert np.abs(small.mean((0, 1)) - frame.mean((0, 1))).max() < 1
    assert len(thumbnails(frame[None], np.zeros(1), end=5.0)) == 8
    assert thumbnails(frame[None][:0], np.zeros(0), end=5.0) == []
    with pytest.raises(ValueError, match="frames must be"):
        thumbnails(frame, np.zeros(1), end=5.0)


def test_a_page_with_noisy_film_strips_stays_under_three_megabytes(tmp_path):
    def noise(video: str) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng(len(video))
        return rng.integers(0, 255, (10, 60, 80, 3), dtype=np.uint8), np.arange(10) * 3.0

    found = page(full_report(frames=noise), tmp_path)
    assert BUDGET / 2 < len(found.source) < 3_000_000
    assert 0 < found.count("div", **{"class": "strip"}) < 40


def test_saved_report_makes_the_same_page_again_without_frames(tmp_path):
    report = full_report()
    save_report(tmp_path, report)
    write_json_lines(tmp_path / "metrics.jsonl", map(dict, report.history))
    write_predictions(tmp_path / "predictions.jsonl", report.predictions)
    first = (tmp_path / "report.html").read_bytes()
    write_report(tmp_path / "again.html", load_report(tmp_path))
    assert (tmp_path / "again.html").read_bytes() == first
    direct = tmp_path / "direct.html"
    write_report(direct, report)
    assert direct.read_bytes() == first
    assert "NaN" not in (tmp_path / "report.json").read_text()


def test_json_form_survives_values_that_are_not_numbers():
    report = full_report(
        queries=[
            Query(
                id="a",
                video="v",
                text="t",
                duration=3.0,
                moments=[[math.nan, 2]],
                glance=math.nan,
                as_annotated=True,
            )
        ],
        curves={"a": [Curve(name="c", times=np.arange(2.0), values=np.array([math.nan, 1.0]))]},
    )
    text = json.dumps(to_json(report), allow_nan=False)
    again = from_json(json.loads(text))
    assert math.isnan(again.queries[0].moments[0, 0])
    assert again.queries[0].glance is None
    assert math.isnan(again.curves["a"][0].values[0])
    assert again.tables == report.tables


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda row: row.pop("queries"), "key 'queries' is missing"),
        (lambda row: row.update(format=99), "expected a report of format 1, found 99"),
        (lambda row: row.update(tables=[3]), "key tables[0]: found 3, expected an object"),
        (lambda row: row.update(queries=[{"id": "a"}]), "in queries[0], key 'video' is missing"),
        (lambda row: row.update(strips=7), "key strips: found 7, expected an object"),
        (
            lambda row: row["seen"].update(q={"rarest": 10**40, "together": True, "held_out": None}),
            "rarest: found 1",
        ),
        (lambda row: row.update(later=1), "unknown key 'later'"),
        (lambda row: row.update(title=None), "key title: found None, expected text"),
        (lambda row: row.update(shown=10**9), "key shown: found 1000000000, expected at most"),
        (lambda row: row.update(seed=-1), "key seed: found -1"),
        (
            lambda row: row["tables"][0]["rows"][0].update(num_missing="3"),
            "tables[0].rows[0].num_missing: found '3'",
        ),
        (
            lambda row: row["tables"][0]["rows"][1]["values"].update(x=True),
            "tables[0].rows[1].values.x: found True",
        ),
        (lambda row: row["queries"][7].update(text=None), "key queries[7].text: found None"),
        (
            lambda row: row["queries"][7].update(duration=-1.0),
            "key queries[7]: query 'q7': duration must be positive",
        ),
        (lambda row: row["queries"][7].update(moments=[1, 2]), "key queries[7].moments[0]: found 1"),
        (lambda row: row["queries"][7].update(moments=[[1.0]]), "key queries[7]: "),
        (lambda row: row["queries"][7].update(moments=[[1.0], [1.0, 2.0]]), "key queries[7]: "),
        (lambda row: row["queries"][7].update(moments=[[1.0, 2.0, 3.0], [4.0]]), "key queries[7]: "),
        (lambda row: row["bias"][2].update(scores=[0.5]), "key bias[2]: prediction for query q2"),
        (
            lambda row: row["curves"].update(q1=[{"name": "c", "times": [1.0], "values": []}]),
            "key curves.q1[0]: ",
        ),
        (lambda row: row["facts"].update(seed=0), "key facts.seed: found 0, expected text"),
    ],
)
def test_a_damaged_report_is_named_in_one_line(damage, message):
    row = to_json(full_report(frames=None))
    damage(row)
    with pytest.raises(UserError, match=re.escape(message)) as caught:
        from_json(row, where="runs/x/report.json")
    assert str(caught.value).startswith("runs/x/report.json: ")
    assert "\n" not in str(caught.value)


@pytest.mark.e2e
def test_the_command_makes_the_page_of_a_run_again(tmp_path):
    report = full_report()
    save_report(tmp_path, report)
    write_predictions(tmp_path / "predictions.jsonl", report.predictions)
    write_json_lines(tmp_path / "metrics.jsonl", map(dict, report.history))
    first = (tmp_path / "report.html").read_bytes()
    (tmp_path / "report.html").unlink()
    done = run_command(tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{tmp_path / 'report.html'}\n", "")
    assert (tmp_path / "report.html").read_bytes() == first
    done = run_command(tmp_path, "--out", tmp_path / "few.html", "--queries", "4")
    assert done.returncode == 0
    assert Page((tmp_path / "few.html").read_text()).count("article") == 4


@pytest.mark.e2e
def test_an_unfinished_run_shows_its_curves(tmp_path):
    lines = [json.dumps(row) for row in history(50)]
    (tmp_path / "metrics.jsonl").write_text("\n".join([*lines, '{"kind": "int']))
    assert run_command(tmp_path).returncode == 0
    found = Page((tmp_path / "report.html").read_text())
    assert "Unfinished:" in found.text
    assert "hinge <b>" in found.texts


@pytest.mark.e2e
def test_bad_folders_end_with_one_line_and_status_two(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "metrics.jsonl").write_text(
        '{"kind": "interval", "update": 1, "epoch": 1}\nnonsense\n'
    )
    (tmp_path / "digits").mkdir()
    (tmp_path / "digits" / "metrics.jsonl").write_text('{"update": ' + 5000 * "9" + "}\n")
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "metrics.jsonl").write_text('{"update": ' + 100_000 * "[" + "\n")
    (tmp_path / "list").mkdir()
    (tmp_path / "list" / "report.json").write_text("[]")
    for name, message in (
        ("absent", "no such run folder"),
        ("empty", "not a run folder"),
        ("broken", "metrics.jsonl:2: not JSON"),
        ("digits", "metrics.jsonl:1: not usable JSON"),
        ("deep", "metrics.jsonl:1: not usable JSON (nested too deeply)"),
        ("list", "expected a report of format 1, found []"),
    ):
        done = run_command(tmp_path / name)
        assert done.returncode == 2, name
        assert re.fullmatch(rf"error: .*{re.escape(message)}.*\n", done.stderr), done.stderr
        assert not (tmp_path / name / "report.html").exists()
    assert run_command(tmp_path, "--queries", "-1").returncode == 2


def test_moments_are_never_regrouped():
    row = to_json(full_report(frames=None))
    row["queries"][3]["moments"] = [[1.0, 2.0, 3.0, 4.0]]
    with pytest.raises(
        UserError, match=r"key queries\[3\]: moments must have shape \(M, 2\), found \(1, 4\)"
    ):
        from_json(row)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda row: row["queries"][3].update(duration=1e308),
            r"key queries\[3\].*duration must be positive",
        ),
        (
            lambda row: row["queries"][3].update(moments=[[0, 1e308]]),
            r"key queries\[3\]: times must be at most 1e\+09",
        ),
        (lambda row: row["queries"][3].update(glance=-1e308), r"key queries\[3\]: times"),
        (lambda row: row["bias"][2].update(moments=[[0, 1e308]] * 5), r"key bias\[2\]: times"),
        (
            lambda row: row["curves"].update(x=[{"name": "", "times": [1e10], "values": [0]}]),
            r"curves\.x\[0\]: times",
        ),
    ],
)
def test_times_that_no_computation_can_bear_are_refused(change, message):
    row = json.loads(json.dumps(to_json(full_report(frames=None))))
    from_json(row)
    change(row)
    with pytest.raises(UserError, match=message):
        from_json(row)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("huge", [1e9, 1e308, math.inf, math.nan, -1e308])
def test_predictions_of_any_numbers_make_a_page(huge):
    made = [
        Query(id="a", video="v", text="t", duration=1e-6, moments=[[0, 1e9]], glance=1e9),
        Query(id="b", video="v", text="t", duration=1e9, moments=[[1, 2]]),
    ]
    guesses = [
        Prediction(query="a", video="v", moments=[[-1e308, huge]], scores=[huge]),
        Prediction(query="b", video="v", moments=[[huge, huge]], scores=[1]),
    ]
    text = render(Report(title="t", queries=made, predictions=guesses, bias=guesses))
    assert not re.search(r'="[^"]*\b(nan|inf)\b[^"]*%?"', text)


def test_hidden_characters_are_written_out(tmp_path):
    text = "a\x1b[2Jb\u202ec\x00"
    found = page(Report(title=text, facts={text: text}), tmp_path)
    assert r"a\u001b[2Jb\u202ec\u0000" in found.text
    assert not set("\x1b\u202e\x00") & set(found.source)


def odd_numbers():
    huge = st.sampled_from([1e308, -1e308, 1e-308, 0.0, 10**300, -(10**300), 10**400])
    return st.none() | st.booleans() | huge | st.floats(allow_nan=False, allow_infinity=False)


@settings(max_examples=40)
@given(st.lists(st.tuples(odd_numbers(), odd_numbers(), odd_numbers()), min_size=1, max_size=5))
def test_any_numbers_of_a_history_make_a_page(rows):
    made = [
        row
        for update, loss, share in rows
        for row in (
            {"kind": "interval", "update": update, "lr": loss, "train/total": loss},
            {"kind": "epoch", "epoch": update, "validation/R@1,mIoU": share, "selected": True},
        )
    ]
    assert "Training" in render(Report(title="t", history=made))


def test_the_work_of_a_history_grows_as_its_rows_do():
    """Also where every row has a key of its own; the page draws some of them and says how many are left out."""
    counts = []
    for number in (100, 400):
        rows = [Counting({"kind": "interval", "update": n, f"train/x{n}": 1.0}) for n in range(number)]
        Counting.reads = 0
        text = render(Report(title="t", history=rows))
        counts.append(Counting.reads)
        assert f"{number - MOST_CHARTS} further charts are left out." in text
    assert counts[1] <= 5 * counts[0]


class Counting(dict):
    reads = 0

    def get(self, key, default=None):
        Counting.reads += 1
        return super().get(key, default)

    def items(self):
        Counting.reads += len(self)
        return super().items()

    def __contains__(self, key):
        Counting.reads += 1
        return super().__contains__(key)

    def __iter__(self):
        Counting.reads += len(self)
        return super().__iter__()


def test_a_page_does_not_grow_with_its_queries():
    sizes = []
    for number in (100, 400):
        made = queries(number)
        sizes.append(len(render(Report(title="t", queries=made, predictions=predictions(made)))))
    assert sizes[1] < 1.1 * sizes[0]
