"""``vmr-score`` as a user runs it."""

import json
import subprocess
import sys

import numpy as np
import pytest

from vmr_common.cli.score import main
from vmr_common.types import Prediction, write_predictions


def annotation_lines(count, shift=0.0):
    return [
        {
            "query_id": f"q{n}",
            "video_id": f"v{n // 2}",
            "duration": 20.0,
            "query": "a dog runs",
            "windows": [[shift, 10.0]],
        }
        for n in range(count)
    ]


def write_lines(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def write_windows(path, windows):
    predictions = [
        Prediction(query=f"q{n}", video=f"v{n // 2}", moments=rows, scores=np.linspace(1, 0.5, len(rows)))
        for n, rows in enumerate(windows)
        if rows is not None
    ]
    write_predictions(path, predictions)
    return str(path)


@pytest.fixture
def case(tmp_path):
    """Four queries; two good answers, one wrong, one missing."""
    annotations = write_lines(tmp_path / "test.jsonl", annotation_lines(4))
    predictions = write_windows(tmp_path / "mine.jsonl", [[[0, 10]], [[0, 9]], [[15, 20]], None])
    return tmp_path, annotations, predictions


def test_a_table_per_protocol_with_header_and_chance(case, answer):
    _, annotations, predictions = case
    status, out, _ = answer(
        main, predictions, "--annotations", annotations, "--protocol", "strict", "--protocol", "point"
    )
    assert status == 0
    blocks = out.split("\n\n")
    assert len(blocks) == 2
    assert blocks[0].startswith(
        "protocol strict (IoU >= m in seconds), split test.jsonl, 4 queries, 1 without prediction\n"
    )
    assert blocks[1].startswith("protocol point (IoU >= m in fractions)")
    row = next(line for line in blocks[0].split("\n") if line.startswith("mine"))
    assert row.split()[1:4] == ["50.00", "50.00", "50.00"]
    assert any(line.startswith("chance") for line in blocks[0].split("\n"))
    assert "bias: left out" in out


def test_training_annotations_give_the_bias_row(case, answer):
    folder, annotations, predictions = case
    train = write_lines(folder / "train.jsonl", annotation_lines(6))
    status, out, _ = answer(main, predictions, "--annotations", annotations, "--train-annotations", train)
    assert status == 0
    row = next(line for line in out.split("\n") if line.startswith("bias "))
    assert row.split()[1] == "100.00"
    assert "0 to 50 % of the video, chosen on train.jsonl (6 queries)" in out


def test_json_holds_fractions_and_every_row(case, answer):
    _, annotations, predictions = case
    status, out, _ = answer(main, predictions, "--annotations", annotations, "--json", "--ranks", "1,3")
    assert status == 0
    result = json.loads(out)["results"][0]
    assert [system["system"] for system in result["systems"]] == ["mine", "chance"]
    assert result["systems"][0]["values"]["R@3,IoU@0.5"] == 0.5
    assert [key for key in result["systems"][0]["values"] if "mIoU" in key] == ["R@1,mIoU", "R@3,mIoU"]
    assert result["systems"][0]["num_missing"] == 1


def test_comparison_gives_the_paired_difference(case, answer):
    folder, annotations, predictions = case
    other = write_windows(folder / "better.jsonl", [[[0, 10]]] * 4)
    arguments = [predictions, "--annotations", annotations, "--compare", other, "--no-baselines"]
    status, out, _ = answer(main, *arguments)
    assert status == 0
    line = next(line for line in out.split("\n") if line.startswith("R@1,IoU@0.5"))
    assert line.split()[1:4] == ["50.00", "100.00", "+50.00"]
    found = json.loads(answer(main, *arguments, "--json")[1])["results"][0]["differences"]["R@1,IoU@0.5"]
    assert found["difference"] == 0.5
    # two videos: one without any gain, one that gains in both queries
    assert found["interval_95"] == [0.0, 1.0]
    assert answer(main, *arguments)[1] == out  # the draw is seeded


def test_thresholds_add_columns_and_one_window_is_remarked(case, answer):
    _, annotations, predictions = case
    arguments = [predictions, "--annotations", annotations, "--no-baselines"]
    out = answer(main, *arguments, "--thresholds", "0.9,0.5")[1].split("\n")
    assert out[1].split()[1:6] == ["R@1,0.3", "0.5", "0.7", "0.9", "mIoU"]
    assert out[3] == "mine: one window per query, so that R@5 equals R@1"
    out = answer(main, *arguments, "--protocol", "qvhighlights", "--thresholds", "0.3")[1].split("\n")
    assert out[1].split()[1:5] == ["R@1,0.3", "0.5", "0.7", "mAP,0.5"]
    assert len(out) == 4


def test_glances_alone_are_scored_by_their_own_protocol(tmp_path, answer):
    rows = [{**row, "windows": [], "point": 4.0} for row in annotation_lines(2)]
    annotations = write_lines(tmp_path / "points.jsonl", rows)
    predictions = write_windows(tmp_path / "mine.jsonl", [[[0, 10]], [[5, 6]]])
    status, out, _ = answer(main, predictions, "--annotations", annotations)
    assert (status, out.split("\n")[0].split(" (")[0]) == (0, "protocol glance")
    status, _, err = answer(main, predictions, "--annotations", annotations, "--protocol", "strict")
    assert (status, "there are no moments, but glances (--protocol glance" in err) == (2, True)


def test_arrays_and_ego4d_files_are_read_too(case, answer):
    folder, annotations, _ = case
    np.savez(folder / "rows.npz", pred_cs=np.tile(np.array([[[0, 1000]]], dtype=np.int32), (4, 1, 1)))
    status, out, _ = answer(main, str(folder / "rows.npz"), "--annotations", annotations, "--json")
    assert status == 0
    assert json.loads(out)["results"][0]["systems"][0]["values"]["R@1,mIoU"] == 1.0

    nlq = write_lines(
        folder / "nlq.jsonl", [{**row, "query_id": f"uid_{n}"} for n, row in enumerate(annotation_lines(4))]
    )
    entry = {"clip_uid": "v0", "annotation_uid": "uid", "query_idx": 0, "predicted_times": [[0, 10]]}
    (folder / "nlq.json").write_text(json.dumps({"results": [entry]}))
    arguments = [str(folder / "nlq.json"), "--annotations", nlq, "--protocol", "ego4d-nlq", "--json"]
    system = json.loads(answer(main, *arguments)[1])["results"][0]["systems"][0]
    assert (system["values"]["R@1,IoU@0.3"], system["num_missing"]) == (1.0, 3)


def test_predictions_of_a_larger_split_can_be_cut_to_this_one(case, answer):
    folder, annotations, _ = case
    larger = write_windows(folder / "larger.jsonl", [[[0, 10]]] * 9)
    status, _, err = answer(main, larger, "--annotations", annotations)
    assert status == 2
    assert "5 of 9 predictions are for queries that the split does not have (first: 'q4'" in err
    status, out, _ = answer(main, larger, "--annotations", annotations, "--ignore-unknown", "--no-baselines")
    assert status == 0
    assert "100.00" in out


def test_empty_targets_can_be_left_out(tmp_path, answer):
    rows = annotation_lines(2)
    rows[1]["windows"] = [[4.0, 4.0]]
    annotations = write_lines(tmp_path / "test.jsonl", rows)
    predictions = write_windows(tmp_path / "mine.jsonl", [[[0, 10]]] * 2)
    arguments = [predictions, "--annotations", annotations, "--policy", "as-annotated", "--json"]
    found = []
    for extra in ([], ["--drop-zero-length"]):
        system = json.loads(answer(main, *arguments, *extra)[1])["results"][0]["systems"][0]
        found.append(system["values"]["R@1,IoU@0.5"])
    assert found == [0.5, 1.0]


def test_a_split_with_hidden_targets_can_be_exported_but_not_scored(tmp_path, answer):
    rows = [{**row, "query_id": n, "windows": []} for n, row in enumerate(annotation_lines(2))]
    annotations = write_lines(tmp_path / "hidden.jsonl", rows)
    write_predictions(
        tmp_path / "mine.jsonl",
        [Prediction(query=str(n), video="v0", moments=[[0, 4]], scores=[1.0]) for n in range(2)],
    )
    arguments = [str(tmp_path / "mine.jsonl"), "--annotations", annotations]
    assert answer(main, *arguments)[0] == 2
    assert "error: the truth of hidden.jsonl is hidden" in answer(main, *arguments)[2]
    status, out, err = answer(main, *arguments, "--export-qvhighlights", str(tmp_path / "out.jsonl"))
    assert (status, err) == (0, "")
    assert out == (
        f"{tmp_path / 'out.jsonl'}: written, 2 queries\n"
        "nothing was scored: the truth of hidden.jsonl is hidden, none of its 2 queries has a moment\n"
    )
    assert len((tmp_path / "out.jsonl").read_text().splitlines()) == 2


@pytest.mark.parametrize(
    ("factor", "remark"),
    [
        (1, None),
        (
            1000,
            "4 of 4 first windows lie outside their videos (are the times milliseconds, and not seconds?)",
        ),
        (0.05, "all windows end within 1 s: are they fractions of the video, and not seconds?"),
    ],
)
def test_windows_in_another_unit_are_remarked(tmp_path, answer, factor, remark):
    annotations = write_lines(tmp_path / "test.jsonl", annotation_lines(4))
    mine = write_windows(tmp_path / "mine.jsonl", [[[4 * factor, 9 * factor], [0, factor]]] * 4)
    status, out, _ = answer(main, mine, "--annotations", annotations, "--no-baselines")
    assert status == 0
    assert out.splitlines()[3:] == ([f"mine: {remark}"] if remark else [])


def test_highlight_scores_that_do_not_count_or_lack_are_remarked(tmp_path, answer):
    labels = {"relevant_clip_ids": [0, 2], "saliency_scores": [[4], [3]]}
    annotations = write_lines(tmp_path / "test.jsonl", [{**row, **labels} for row in annotation_lines(4)])
    rows = [{"qid": f"q{n}", "pred_relevant_windows": [[0, 9, 1]]} for n in range(4)]
    for row in rows[:3]:
        row["pred_saliency_scores"] = [0.5] * 10
    mine = write_lines(tmp_path / "mine.jsonl", rows)
    for protocol, remark in (
        (
            "strict",
            "highlight scores of 3 predictions do not count in strict (in --protocol qvhighlights they do)",
        ),
        ("qvhighlights", "1 of 4 queries have no highlight scores: misses"),
    ):
        out = answer(main, mine, "--annotations", annotations, "--no-baselines", "--protocol", protocol)[1]
        assert out.splitlines()[-1] == f"mine: {remark}"


def test_scores_of_other_clips_and_training_without_moments_are_remarked(tmp_path, answer):
    row = {"qid": 1, "vid": "v", "query": "a dog runs", "duration": 6, "label": [1, 0, 1]}
    for name, content in (
        ("clips.jsonl", row),
        ("glances.jsonl", {"qid": 1, "vid": "v", "query": "a dog runs", "duration": 6, "point": 1}),
        ("mine.jsonl", {"qid": 1, "pred_saliency_scores": [0.1, 0.9], "pred_relevant_windows": [[0, 2]]}),
    ):
        (tmp_path / name).write_text(json.dumps(content))
    clips, glances, mine = (str(tmp_path / f"{name}.jsonl") for name in ("clips", "glances", "mine"))
    assert answer(main, mine, "--annotations", clips)[1].splitlines()[-1] == (
        "mine: 1 of 1 lists of highlight scores have more or fewer scores than clips (first: 2 for 3): "
        "cut, or the rest ranks last"
    )
    (tmp_path / "clips.jsonl").write_text(
        "".join(json.dumps({**row, "qid": number}) + "\n" for number in (1, 2))
    )
    assert answer(main, mine, "--annotations", clips)[1].splitlines()[-1] == (
        "mine: 1 of 2 queries have no highlight scores: misses"
    )
    out = answer(main, mine, "--annotations", glances, "--train-annotations", glances)[1]
    assert out.splitlines()[-1] == "bias: left out, no training query of glances.jsonl has a moment"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "the following arguments are required: predictions"),
        (["P"], "give either --split NAME or --annotations FILE"),
        (["P", "--annotations", "A", "--split", "x/test"], "give either --split NAME or --annotations FILE"),
        (["P", "--annotations", "A", "--protocol", "srict"], "unknown protocol 'srict'; known: strict"),
        (
            ["P", "--annotations", "A", "--nms", "x"],
            "--nms: expected a number, at least 0 and at most 1, found 'x'",
        ),
        (
            ["P", "--annotations", "A", "--nms", "nan"],
            "--nms: expected a number, at least 0 and at most 1, found 'nan'",
        ),
        (
            ["P", "--annotations", "A", "--nms", "-1"],
            "--nms: expected a number, at least 0 and at most 1, found '-1'",
        ),
        (["P", "--annotations", "A", "--nms", "0.5"], "--nms: no suppression in strict"),
        (
            ["P", "--annotations", "A", "--protocol", "tvsum", "--thresholds", "0.5"],
            "--thresholds: tvsum has none",
        ),
        (
            ["P", "--annotations", "A", "--protocol", "qvhighlights", "--ranks", "1,5"],
            "--ranks: qvhighlights has",
        ),
        (["P", "--annotations", "A", "--ranks", "0,1"], "--ranks: expected a whole number, at least 1"),
        (["P", "--annotations", "A", "--ranks", "1,x"], "--ranks: expected a whole number, at least 1"),
        (["P", "--annotations", "A", "--ranks", "9" * 5000], "--ranks: expected a whole number, at least 1"),
        (["P", "--annotations", "A", "--ranks", ""], "--ranks: expected a whole number, at least 1"),
        (
            ["P", "--annotations", "A", "--thresholds", "50"],
            "--thresholds: expected a number, above 0 and at most 1",
        ),
        (["P", "--annotations", "A", "--thresholds", "0.5,nan"], "above 0 and at most 1, found 'nan'"),
        (["P", "--annotations", "A", "--thresholds", "0.5,"], "above 0 and at most 1, found ''"),
        (
            ["P", "--split", "shapes/test", "--policy", "as-annotated"],
            "--policy is for --annotations, split shapes",
        ),
        (["P", "--annotations", "nowhere.jsonl"], "nowhere.jsonl: no such file"),
        (["nowhere.jsonl", "--annotations", "A"], "nowhere.jsonl: no such file"),
        (["nowhere.npz", "--annotations", "A"], "nowhere.npz: no such file"),
        (["P", "--split", "nowhere/test"], "nowhere/test"),
        (
            ["P", "--annotations", "A", "--export-ego4d", "out.json"],
            "4 of 4 query ids are not <annotation_uid>_<query_idx> ('q0', 'q1', 'q2' and 1 more",
        ),
        (["P", "--annotations", "A", "--export-ego4d", "P"], "the submission would overwrite its own source"),
        (["P", "--annotations", "A", "--export-qvhighlights", "A"], "would overwrite its own source"),
        (["P", "--prot", "strict"], "--prot"),
    ],
)
def test_wrong_input_is_one_line_and_status_2(case, answer, arguments, message):
    _, annotations, predictions = case
    given = [{"P": predictions, "A": annotations}.get(argument, argument) for argument in arguments]
    status, out, err = answer(main, *given)
    assert (status, out) == (2, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert message in err


@pytest.mark.e2e
def test_the_command_runs_as_a_process(case):
    _, annotations, predictions = case
    command = [sys.executable, "-m", "vmr_common.cli.score", predictions, "--annotations", annotations]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("protocol strict")
    done = subprocess.run([*command[:3], "--help"], capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert "--compare" in done.stdout


def test_published_values_of_a_real_system_from_the_command_line(shared_data, answer):
    real = shared_data / "eval_public" / "charades_moment_detr_preds.npz"
    expected = json.loads((shared_data / "eval_public" / "charades_moment_detr_expected.json").read_text())
    status, out, _ = answer(
        main,
        str(real),
        *("--split", "charades-sta/test", "--data-root", str(shared_data), "--protocol", "proposal-map"),
        *("--nms", "0.4", "--ranks", "1,5,10", "--json"),
    )
    assert status == 0
    report = json.loads(out)
    assert [row["system"] for row in report["results"][0]["systems"]] == [real.stem, "chance", "bias"]
    values = report["results"][0]["systems"][0]["values"]
    published = expected["proposal_map_eval"]["nms_0.4"]
    for key, value in values.items():
        name = "mIoU" if key == "R@1,mIoU" else key.replace("@0", "=0")
        assert value == pytest.approx(published[name], abs=1e-9)
