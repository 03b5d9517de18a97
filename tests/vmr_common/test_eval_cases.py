"""Every figure that the original evaluation programs gave on recorded predictions.

Cases are found in ``../shared/data/eval_public`` and in every folder of ``$VMR_EVAL_CASES``; sizes,
thresholds and keys are read from the files. Recalls in float64 are demanded exactly, although many windows
lie within 1e-6 of a threshold (``near_threshold_pairs``): the arithmetic is ordered as in the originals, and
it is these pairs that tell ``>`` from ``>=``. Means, and all that the originals average in float32, carry a
tolerance of 1e-6.
"""

import json
import os
import re
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from rgnet import window_metrics
from vmr_common import evaluation as protocols
from vmr_common import metrics
from vmr_common.io import read_json_lines
from vmr_common.predictions import read_predictions
from vmr_common.types import Prediction, Query

pytestmark = pytest.mark.parity

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
PUBLIC = DATA / "eval_public"
EXACT, SINGLE = 1e-12, 1e-6
PREDICTED = ("pred", "score", "window", "num_windows")  # arrays that never come from another case
# what describes a case, and is no figure of the original programs
DESCRIBES = {"dataset", "set", "model", "n_queries", "n_proposals", "near_threshold_pairs"}
COMPARED = {"official_table_percent", "HL-min-Good", "HL-min-VeryGood"}  # and the groups that tests ask for


def folders():
    extra = os.environ.get("VMR_EVAL_CASES", "").split(os.pathsep)
    found = [PUBLIC, *(Path(folder) for folder in extra if folder)]
    return list(dict.fromkeys(folder.resolve() for folder in found if folder.is_dir()))


def expected_files():
    return [path for folder in folders() for path in sorted(folder.glob("*_expected.json"))]


def stem(path):
    return path.name.removesuffix("_expected.json")


def groups(*names):
    """(expected file, group, variant) for each part of each file that holds one of the named groups."""
    COMPARED.update(names)
    found = []
    for path in expected_files():
        expected = json.loads(path.read_text())
        for name in names:
            if name not in expected:
                continue
            inner = expected[name]
            variants = [v for v in inner if isinstance(inner[v], dict)] or [""]
            for variant in variants:
                label = "-".join(filter(None, [path.parent.name, path.stem, name, variant]))
                found.append(pytest.param(path, name, variant, id=label))
    return found or [pytest.param(None, "", "", id="none")]


@pytest.fixture(autouse=True)
def _skip_without_cases(request):
    callspec = getattr(request.node, "callspec", None)
    if callspec and callspec.params.get("path", "") is None:
        pytest.skip("no evaluation case of this kind: neither ../shared/data/eval_public nor $VMR_EVAL_CASES")


def read(path):
    with np.load(path, allow_pickle=False) as archive:
        return {key: archive[key] for key in archive.files}


def arrays(path):
    """The arrays of a case; what it lacks comes from the public file of the same name."""
    for name in (f"{stem(path)}.npz", f"{stem(path)}_preds.npz"):
        own, public = path.parent / name, PUBLIC / name
        if own.is_file():
            public_arrays = read(public) if public.is_file() else {}
            truth = {key: array for key, array in public_arrays.items() if not key.startswith(PREDICTED)}
            return {**truth, **read(own)}
    raise AssertionError(f"{path}: no arrays beside it")


def windows_of(case):
    for key, unit in (("pred_cs", 100.0), ("pred_e4", 10000.0), ("pred", 1.0)):
        if key in case:
            return case[key] / unit
    raise AssertionError(f"no predicted windows among {sorted(case)}")


@cache
def load(path, rows=None, truth="gt_raw"):
    case = arrays(path)
    windows = windows_of(case)
    scores = case["score_e4"] / 1e4 if "score_e4" in case else np.zeros(windows.shape[:2])
    targets, duration = truth_of(case, truth)
    chosen = case[rows] if rows in case else np.arange(len(windows))
    # a record may occur twice in another method's list, so the position is the id
    queries = [
        Query(id=str(i), video="v", text="", duration=float(duration[row]), moments=[targets[row]])
        for i, row in enumerate(chosen)
    ]
    predictions = [
        Prediction(query=str(i), video="v", moments=windows[row], scores=scores[row])
        for i, row in enumerate(chosen)
    ]
    return case, queries, predictions


def truth_of(case, name):
    if name in case:
        return case[name], case.get("duration", np.full(len(case[name]), 1e9))
    # Ego4D: targets are a table of their own, in the order of the prediction array
    table = np.genfromtxt(
        DATA / "ego4d_nlq" / "nlq_val_times.tsv.gz", delimiter="\t", names=True, usecols=(3, 4), dtype=float
    )
    targets = np.stack([table["start_sec"], table["end_sec"]], axis=1)
    return targets, np.full(len(targets), 1e9)


def numbers(keys, letter):
    """The distinct n (``R``) or m (``I``) in keys such as ``R@5,IoU=0.3``."""
    parts = [key.replace("=", "@").split(",") for key in keys if "IoU=" in key or "IoU@" in key]
    return tuple(
        sorted({(int if letter == "R" else float)(p["RI".index(letter)].split("@")[1]) for p in parts})
    )


def ours(key):
    key = "R@1,mIoU" if key == "mIoU" else key.replace("=", "@")
    return re.sub(r"^miou_of_rank_(\d+)$", r"rank \1,mIoU", key)


def compare(values, expected, tolerance=EXACT, mean_tolerance=EXACT):
    found = {key: values[ours(key)] for key in expected}
    wrong = {
        key: (found[key], value)
        for key, value in expected.items()
        if not abs(found[key] - value) <= (mean_tolerance if "mIoU" in ours(key) else tolerance)
    }
    assert not wrong, "ours, expected"


def fitted(preset, expected):
    """A preset with the thresholds and ranks that a case asks for."""
    means = {int(found[1]) for found in (re.match(r"\D*(\d+),mIoU", ours(key)) for key in expected) if found}
    return replace(
        preset,
        thresholds=numbers(expected, "I"),
        ranks=numbers(expected, "R"),
        miou_ranks=tuple(sorted(means)) or preset.miou_ranks,
    )


@pytest.mark.parametrize(("path", "group", "variant"), groups("proposal_map_eval"))
def test_proposal_map_evaluation(path, group, variant):
    expected = json.loads(path.read_text())[group][variant]
    _, queries, predictions = load(path)
    suppression = float(variant.removeprefix("nms_"))
    protocol = fitted(replace(protocols.protocol("proposal-map"), nms=suppression), expected)
    compare(protocol.score(queries, predictions).values, expected, mean_tolerance=1e-9)


@pytest.mark.parametrize(("path", "group", "variant"), groups("point_runner"))
def test_point_runner(path, group, variant):
    expected = json.loads(path.read_text())[group][variant]
    _, queries, predictions = load(path, rows=f"{variant}_rows")
    assert len(queries) == expected["n_queries"]
    figures = {key: value for key, value in expected.items() if key.startswith("R@")}
    protocol = fitted(protocols.protocol("point"), figures)
    compare(protocol.score(queries, predictions).values, figures, mean_tolerance=1e-9)


@pytest.mark.parametrize(("path", "group", "variant"), groups("viga"))
def test_viga(path, group, variant):
    expected = json.loads(path.read_text())[group][variant]
    _, queries, predictions = load(path)
    protocol = fitted(protocols.protocol("viga"), expected)
    compare(protocol.score(queries, predictions).values, expected, mean_tolerance=SINGLE)


@pytest.mark.parametrize(("path", "group", "variant"), groups("long_video_recall_float32"))
def test_mad(path, group, variant):
    expected = json.loads(path.read_text())[group]
    _, queries, predictions = load(path)
    protocol = fitted(protocols.protocol("mad"), expected)
    compare(protocol.score(queries, predictions).values, expected, tolerance=SINGLE)


@pytest.mark.parametrize(("path", "group", "variant"), groups("ego4d_nlq", "values"))
def test_ego4d_nlq(path, group, variant):
    expected = json.loads(path.read_text())
    _, queries, predictions = load(path)
    protocol = fitted(protocols.protocol("ego4d-nlq"), expected[group])
    values = protocol.score(queries, predictions).values
    compare(values, expected[group])
    for key, percent in expected.get("official_table_percent", {}).items():
        assert round(100 * values[ours(key)], 2) == percent


@pytest.mark.parametrize(("path", "group", "variant"), groups("source_metrics"))
def test_published_values_of_a_real_system(path, group, variant):
    # targets cut to the container's duration and hits from equality up: our default protocol
    published = json.loads(path.read_text())[group]
    _, queries, predictions = load(path, truth="gt_container")
    named = {key.replace("_IoU_", ",IoU@"): value for key, value in published.items() if "_IoU_" in key}
    named["mIoU"] = published["mIoU"]
    scores = fitted(protocols.protocol("strict"), named).score(queries, predictions)
    assert scores.num_queries == published["evaluated_queries"]
    compare(scores.values, named, mean_tolerance=1e-9)


@pytest.mark.parametrize(("path", "group", "variant"), groups("window_recall"))
def test_window_recall(path, group, variant):
    expected = json.loads(path.read_text())[group]
    case = arrays(path)
    positive = window_metrics.positive_windows(
        case["gt_raw"], clip_length=expected["clip_length_sec"], window_clips=expected["max_v_l"]
    )
    ranks = [int(key.removeprefix("R@")) for key in expected if key.startswith("R@")]
    found = window_metrics.window_recall(case["window_rank"], positive, ranks)
    np.testing.assert_allclose(found, [expected[f"R@{rank}"] for rank in ranks], rtol=0, atol=SINGLE)


@cache
def highlights_truth(qids):
    """The split of QVHighlights that has exactly these ids."""
    for name in ("val_release.jsonl", "test_with_gt.jsonl.gz", "train_release.jsonl.gz"):
        rows = [row for _, row in read_json_lines(DATA / "qvhighlights" / f"highlight_{name}")]
        if {str(row["qid"]) for row in rows} == qids:
            return [
                Query(
                    id=str(row["qid"]),
                    video=row["vid"],
                    text=row["query"],
                    duration=row["duration"],
                    moments=row["relevant_windows"],
                    saliency=np.array(row["saliency_scores"], dtype=float),
                    saliency_clips=np.array(row["relevant_clip_ids"], dtype=np.int64),
                )
                for row in rows
            ]
    raise AssertionError("no split of QVHighlights has these query ids")


@cache
def highlights_values(path):
    found = [
        path.with_name(stem(path) + ending) for ending in ("_preds.jsonl.gz", "_preds.jsonl", ".jsonl.gz")
    ]
    predictions = read_predictions(next(file for file in found if file.is_file()))
    queries = highlights_truth(frozenset(prediction.query for prediction in predictions))
    return protocols.protocol("qvhighlights").score(queries, predictions).values


@pytest.mark.parametrize(
    ("path", "group", "variant"), groups("full", "short", "middle", "long", "HL-min-Fair")
)
def test_qvhighlights(path, group, variant):
    expected = json.loads(path.read_text())
    values = highlights_values(path)
    if group == "HL-min-Fair":
        flat = {
            f"HL-{level},{ours}": expected[f"HL-min-{level}"][name]
            for level in ("Fair", "Good", "VeryGood")
            for ours, name in (("mAP", "HL-mAP"), ("Hit@1", "HL-Hit1"))
        }
    else:
        prefix = "" if group == "full" else f"{group} "
        kind = {"MR-mAP": "mAP", "MR-R1": "R@1"}[variant]
        flat = {
            f"{prefix}{kind},mean" if key == "average" else f"{prefix}{kind},IoU@{float(key):g}": value
            for key, value in expected[group][variant].items()
        }
    found = {key: round(100 * values[key], 6) for key in flat}
    assert found == flat


@pytest.mark.parametrize(("path", "group", "variant"), groups("brief"))
def test_the_short_table_of_qvhighlights(path, group, variant):
    expected, values = json.loads(path.read_text())[group], highlights_values(path)
    names = {}
    for key in expected:
        kind, subset, what = key.split("-", 2)
        if kind == "HL":
            level, what = what.split("-")
            names[key] = f"HL-{level},{what.replace('Hit1', 'Hit@1')}"
            continue
        figure, _, threshold = what.replace("R1", "R@1").partition("@0")
        prefix = "" if subset == "full" else f"{subset} "
        names[key] = f"{prefix}{figure}," + (f"IoU@0{threshold}" if threshold else "mean")
    assert {key: round(100 * values[name], 2) for key, name in names.items()} == expected


@pytest.mark.parametrize(
    "path",
    [pytest.param(path, id=f"{path.parent.name}-{path.stem}") for path in expected_files()]
    or [pytest.param(None, id="none")],
)
def test_every_group_of_expected_values_is_compared(path):
    assert set(json.loads(path.read_text())) <= DESCRIBES | COMPARED


def suppression_cases():
    found = []
    for folder in folders():
        for path in sorted(folder.glob("*_nms_expected.npz")):
            with np.load(path, allow_pickle=False) as archive:
                label = f"{folder.name}-{path.stem}"
                found += [pytest.param(path, key, id=f"{label}-{key}") for key in archive.files]
    return found or [pytest.param(None, "", id="none")]


@pytest.mark.parametrize(("path", "key"), suppression_cases())
def test_suppression_keeps_the_same_windows(path, key):
    with np.load(path, allow_pickle=False) as archive:
        expected = archive[key]
    kind, _, threshold = key.rpartition("_")
    case, *_ = load(path.with_name(path.name.replace("_nms_expected.npz", "_expected.json")))
    windows = windows_of(case)
    kept = metrics.nms(
        windows,
        float(threshold),
        scores=case["score_e4"] if kind == "sorted_scores" else None,
        union="hull",
        empty=0.0,
        limit=100,
    )
    np.testing.assert_array_equal(kept[:, : expected.shape[1]], expected)


FORMS = {
    "proposal_map": lambda a, b: metrics.iou(a, b),
    "point_runner": lambda a, b: metrics.iou(a, b, eps=1e-10),
    "viga_float32": lambda a, b: metrics.iou(a.astype("f4"), b.astype("f4"), empty=0.0),
    "mad_float32": lambda a, b: metrics.iou(a.astype("f4"), b.astype("f4")),
    "temporal_nms": lambda a, b: metrics.iou(a, b, empty=0.0),
    "qvh_cross": lambda a, b: metrics.iou(a, b, "true"),
    "qvh_paired": lambda a, b: metrics.iou(a, b, empty=0.0),
}


def overlap_cases():
    found = [
        pytest.param(folder / "iou_edge_cases.json", form, id=f"{folder.name}-iou_edge_cases-{form}")
        for folder in folders()
        if (folder / "iou_edge_cases.json").is_file()
        for form in FORMS
    ]
    return found or [pytest.param(None, "", id="none")]


@pytest.mark.parametrize(("path", "form"), overlap_cases())
def test_overlap_of_edge_cases(path, form):
    cases = json.loads(path.read_text())["cases"]
    assert set().union(*cases) <= {*FORMS, "pred", "target", "note"}
    pairs = np.array([[case["pred"], case["target"]] for case in cases])
    expected = np.array([np.nan if case[form] is None else case[form] for case in cases])
    np.testing.assert_array_equal(FORMS[form](pairs[:, 0], pairs[:, 1]), expected)
