"""Named protocols: the edge cases that break one official program or another."""

import inspect
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmr_common import evaluation as protocols
from vmr_common import metrics
from vmr_common.errors import UserError
from vmr_common.evaluation.glance import measurable
from vmr_common.types import Prediction, Query

SINGLE = [name for name in protocols.names() if type(protocols.protocol(name)) is protocols.Protocol]


def query(identifier, moments, duration=100.0, glance=5.0):
    moments = moments if moments and isinstance(moments[0], list) else [moments] if moments else []
    about = {"video": "v", "text": "a dog runs", "duration": duration, "as_annotated": True}
    return Query(id=identifier, moments=moments, glance=glance, **about)


def prediction(identifier, *windows, scores=None):
    scores = np.linspace(1, 0.1, len(windows)) if scores is None else scores
    return Prediction(query=identifier, video="v", moments=list(windows), scores=scores)


def score(name, queries, predictions, **changes):
    return replace(protocols.protocol(name), **changes).score(queries, predictions)


def test_every_name_gives_a_protocol_of_that_name():
    for name in protocols.names():
        assert protocols.protocol(name).name == name
        assert protocols.protocol(name).describe()


@pytest.mark.parametrize("package", [metrics, protocols])
def test_every_public_function_has_an_example(package):
    functions = [getattr(package, name) for name in package.__all__]
    lacking = [f.__name__ for f in functions if inspect.isfunction(f) and ">>>" not in (f.__doc__ or "")]
    assert lacking == []


def test_an_unknown_name_is_the_users_error_and_lists_the_known_ones():
    with pytest.raises(UserError, match=r"'srict'.*strict, proposal-map, point"):
        protocols.protocol("srict")


def test_keys_of_the_strict_protocol_come_in_a_fixed_order():
    scores = score("strict", [query("0", [0, 10])], [prediction("0", [0, 10])])
    assert list(scores.values) == [
        "R@1,IoU@0.3",
        "R@1,IoU@0.5",
        "R@1,IoU@0.7",
        "R@1,mIoU",
        "R@5,IoU@0.3",
        "R@5,IoU@0.5",
        "R@5,IoU@0.7",
        "R@5,mIoU",
    ]
    assert set(scores.values.values()) == {1.0}
    assert (scores.protocol, scores.num_queries, scores.num_missing) == ("strict", 1, 0)


@pytest.mark.parametrize("name", SINGLE)
def test_a_missing_query_counts_as_a_miss_except_in_ego4d(name):
    queries = [query("a", [0, 10]), query("b", [0, 10])]
    scores = score(name, queries, [prediction("b", [0, 10])])
    assert scores.values["R@1,IoU@0.5"] == (1.0 if name == "ego4d-nlq" else 0.5)
    assert (scores.num_queries, scores.num_missing) == (2, 1)


@pytest.mark.parametrize("name", SINGLE)
def test_an_empty_list_is_a_miss_and_counted_as_missing(name):
    scores = score(
        name, [query("a", [0, 10]), query("b", [0, 10])], [prediction("a"), prediction("b", [0, 10])]
    )
    assert scores.values["R@1,IoU@0.5"] == 0.5
    assert scores.num_missing == 1


ODD = {
    "nothing": [],
    "empty lists": [prediction("a"), prediction("b")],
    "one window": [prediction("a", [0, 10]), prediction("b", [0, 10])],
    "windows of no length": [prediction("a", [5, 5], [5, 5]), prediction("b", [5, 5])],
    "reversed windows": [prediction("a", [10, 0]), prediction("b", [9, 4])],
    "one query only": [prediction("b", [0, 10])],
}


@pytest.mark.parametrize("name", [*SINGLE, "qvhighlights", "glance"])
@pytest.mark.parametrize("predictions", ODD.values(), ids=ODD)
def test_whatever_is_predicted_is_scored_or_refused_in_one_line(name, predictions):
    queries = [query("a", [[0, 10], [20, 30]]), query("b", [0, 10]), query("c", [], glance=None)]
    if name == "ego4d-nlq" and not predictions:  # it counts the queries with a prediction alone
        with pytest.raises(UserError, match="no query counts"):
            score(name, queries, predictions)
        return
    scores = score(name, queries, predictions)
    missing = 2 - sum(len(one.moments) > 0 for one in predictions)
    assert (scores.num_queries, scores.num_left_out, scores.num_missing) == (2, 1, missing)
    assert all(0 <= value <= 1 for value in scores.values.values())
    if missing == 2:
        assert not any(value for key, value in scores.values.items() if not key.startswith("distance"))
    parts = protocols.protocol(name).per_query(queries, predictions)
    assert all(len(array) == 3 and np.isnan(array[2]) for array in parts.values())
    with pytest.raises(UserError, match=r"none of the 1 queries has a (target|glance)"):
        score(name, queries[2:], [])


def test_where_there_are_glances_alone_these_are_measured():
    queries = [query(name, [], glance=glance) for name, glance in (("a", 20.0), ("b", 5.0), ("c", 90.0))]
    assert measurable(queries) == "glance"
    scores = score("glance", queries, [prediction("a", [10, 20], [0, 9]), prediction("b", [10, 20])])
    assert scores.values == pytest.approx(
        {"R@1,glance": 1 / 3, "distance,mean": (0.05 + 0.1 + 0.9) / 3, "distance,median": 0.1}
    )
    assert scores.num_missing == 1
    assert (
        "3 queries (and 1 without a target, left out), 3 without"
        in score("glance", [*queries, query("d", [], glance=None)], []).counts()
    )
    assert measurable([query("a", [0, 1])]) == "moments"
    assert measurable([query("a", [], glance=None)]) is None


@pytest.mark.parametrize("name", SINGLE)
def test_only_empty_lists_give_zero(name):
    scores = score(name, [query("a", [0, 10])], [prediction("a")])
    assert set(scores.values.values()) == {0.0}


def test_nothing_predicted_at_all_is_zero_in_strict_and_an_error_where_only_predictions_count():
    assert set(score("strict", [query("a", [0, 10])], []).values.values()) == {0.0}
    with pytest.raises(UserError, match="no query counts"):
        score("ego4d-nlq", [query("a", [0, 10])], [])


@pytest.mark.parametrize("name", SINGLE)
def test_zero_length_targets_and_windows_never_poison_a_mean(name):
    queries = [query("a", [50, 50]), query("b", [0, 10])]
    scores = score(name, queries, [prediction("a", [50, 50], [50, 50]), prediction("b", [0, 10], [3, 3])])
    assert all(math.isfinite(value) for value in scores.values.values())
    # 0/0 is 1 only where 1e-10 is added to both parts
    assert scores.values["R@1,IoU@0.5"] == (1.0 if name == "point" else 0.5)


def test_zero_length_targets_can_be_left_out():
    queries = [query("a", [4, 4]), query("b", [0, 10])]
    predictions = [prediction("a", [0, 10]), prediction("b", [0, 10])]
    assert score("ego4d-nlq", queries, predictions).values["R@1,IoU@0.5"] == 0.5
    scores = score("ego4d-nlq", queries, predictions, drop_zero_length=True)
    assert scores.values["R@1,IoU@0.5"] == 1.0
    assert "without zero-length" in scores.compare


@pytest.mark.parametrize("name", SINGLE)
def test_a_window_that_starts_after_it_ends_never_hits(name):
    scores = score(name, [query("a", [0, 10])], [prediction("a", [10, 0])])
    assert scores.values["R@1,IoU@0.5"] == 0.0


@pytest.mark.parametrize("name", SINGLE)
def test_a_target_that_starts_after_it_ends_is_never_hit(name):
    values = score(name, [query("a", [10, 0])], [prediction("a", [0, 10], [2, 8], [20, 30])]).values
    assert all(math.isfinite(value) for value in values.values())
    assert {value for key, value in values.items() if "mIoU" not in key} == {0.0}


@pytest.mark.parametrize(
    ("name", "hit"),
    [
        ("strict", True),
        ("proposal-map", False),
        ("point", True),
        ("viga", True),
        ("ego4d-nlq", False),
        ("mad", False),
        ("mad-vlg", True),
    ],
)
def test_an_overlap_exactly_at_the_threshold(name, hit):
    scores = score(name, [query("a", [0, 10], 20.0)], [prediction("a", [0, 5])])
    assert scores.values["R@1,IoU@0.5"] == float(hit)


def test_the_threshold_is_met_in_single_but_not_in_double_precision_and_the_reverse():
    at_half = [query("a", [0.1, 0.3])], [prediction("a", [0.1, 0.2])]  # a little below 0.5 in float32
    assert score("mad", *at_half).values["R@1,IoU@0.5"] == 0.0
    assert score("mad-vlg", *at_half).values["R@1,IoU@0.5"] == 0.0
    assert score("strict", *at_half).values["R@1,IoU@0.5"] == 1.0
    at_seven = [query("a", [2.1, 3.1])], [prediction("a", [2.1, 2.8])]  # a little above 0.7 in float32
    assert score("mad-vlg", *at_seven).values["R@1,IoU@0.7"] == 1.0
    assert score("strict", *at_seven).values["R@1,IoU@0.7"] == 0.0


@pytest.mark.parametrize("name", SINGLE)
def test_fewer_windows_than_n_and_duplicates_are_fine(name):
    scores = score(name, [query("a", [0, 10])], [prediction("a", [50, 60], [50, 60], [0, 10])])
    assert scores.values["R@1,IoU@0.5"] == 0.0
    last = [value for key, value in scores.values.items() if key.endswith("IoU@0.5")][-1]
    assert last == 1.0


def test_point_names_its_second_rank_after_the_number_of_windows():
    scores = score("point", [query("a", [0, 10])], [prediction("a", *[[0, 10]] * 4)])
    assert "R@4,IoU@0.5" in scores.values
    assert "R@5,IoU@0.5" not in scores.values
    assert "R@5,mIoU" in score("point", [query("a", [0, 10])], [prediction("a", *[[0, 10]] * 8)]).values


def test_point_takes_fractions_with_a_duration_of_one():
    queries = [query("a", [0.2, 0.6], 1.0)]
    scores = score("point", queries, [prediction("a", [0.2, 0.4])])
    assert scores.values["R@1,mIoU"] == pytest.approx(0.5, abs=1e-7)


def test_a_target_past_the_end_is_cut_or_not():
    queries, predictions = [query("a", [5, 20], 10.0)], [prediction("a", [5, 10])]
    assert score("proposal-map", queries, predictions).values["R@1,mIoU"] == 1.0
    assert score("viga", queries, predictions).values["R@1,mIoU"] == 1.0
    for name in ("strict", "point"):
        assert score(name, queries, predictions).values["R@1,mIoU"] == pytest.approx(1 / 3)


def test_a_window_past_the_end_is_cut_or_not():
    queries, predictions = [query("a", [5, 10], 10.0)], [prediction("a", [5, 20])]
    for name in ("point", "viga"):
        assert score(name, queries, predictions).values["R@1,mIoU"] == pytest.approx(1.0)
    for name in ("strict", "proposal-map"):
        assert score(name, queries, predictions).values["R@1,mIoU"] == pytest.approx(1 / 3)


def test_several_targets_count_by_the_best_match():
    queries = [query("a", [[0, 10], [50, 60]]), query("b", [0, 10])]
    predictions = [prediction("a", [50, 60]), prediction("b", [0, 8])]
    scores = score("strict", queries, predictions)
    assert scores.values["R@1,mIoU"] == pytest.approx(0.9)


def test_padding_of_targets_is_no_target():
    # a query with one target is padded to two; a window around 0 must not match the padding
    queries = [query("a", [[0, 10], [50, 60]]), query("b", [50, 60])]
    scores = score("point", queries, [prediction("a", [0, 10]), prediction("b", [0, 0])])
    assert scores.values["R@1,IoU@0.1"] == 0.5


def test_suppression_decides_which_windows_are_the_first_five():
    windows = [[0, 100], [0, 99], [0, 98], [0, 97], [0, 96], [40, 50]]
    queries, predictions = [query("a", [40, 50])], [prediction("a", *windows)]
    assert score("strict", queries, predictions).values["R@5,IoU@0.5"] == 0.0
    assert score("proposal-map", queries, predictions).values["R@5,IoU@0.5"] == 1.0


def test_the_given_order_is_trusted_and_tied_scores_keep_it():
    queries = [query("a", [0, 10])]
    windows = ([50, 60], [0, 10])
    for scores in ([1.0, 1.0], [0.1, 0.9]):
        for name in SINGLE:
            values = score(name, queries, [prediction("a", *windows, scores=scores)]).values
            assert values["R@1,IoU@0.5"] == 0.0


def test_two_queries_with_the_same_text_and_video_are_two_queries():
    queries = [query("a", [0, 10]), query("b", [50, 60])]
    scores = score("strict", queries, [prediction("a", [0, 10]), prediction("b", [0, 10])])
    assert scores.values["R@1,IoU@0.5"] == 0.5


@pytest.mark.parametrize("name", [*SINGLE, "qvhighlights"])
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_time_that_is_not_finite_is_the_users_error(name, bad):
    with pytest.raises(UserError, match=r"predicted for query 'b'.*not finite"):
        score(name, [query("a", [0, 10]), query("b", [0, 10])], [prediction("b", [0, bad])])
    with pytest.raises(UserError, match=r"target of query 'a'.*not finite"):
        score(name, [query("a", [0, bad])], [prediction("a", [0, 1])])


@pytest.mark.parametrize("name", protocols.names())
def test_ids_must_fit(name):
    known = [query("a", [0, 10]), query("b", [0, 10])]
    with pytest.raises(UserError, match=r"1 of 2 predictions are for queries.*first: 'x'"):
        score(name, known, [prediction("a", [0, 10]), prediction("x", [0, 10])])
    with pytest.raises(UserError, match="'a' has two predictions"):
        score(name, known, [prediction("a", [0, 10])] * 2)
    with pytest.raises(UserError, match="'a' occurs twice"):
        score(name, [known[0]] * 2, [prediction("a", [0, 10])])
    with pytest.raises(UserError, match="no queries"):
        score(name, [], [])


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(1, 40)), min_size=2, max_size=12), st.randoms())
@pytest.mark.e2e
def test_the_order_of_predictions_and_queries_does_not_matter(raw, random):
    queries = [query(str(n), [start, start + length]) for n, (start, length) in enumerate(raw)]
    predictions = [
        prediction(str(n), [start, start + 10], [length, 40 + length])
        for n, (start, length) in enumerate(raw)
    ]
    for name in SINGLE:
        before = score(name, queries, predictions).values
        shuffled = list(predictions)
        random.shuffle(shuffled)
        assert score(name, queries, shuffled).values == before
        assert score(name, queries[::-1], shuffled).values == pytest.approx(before)


@pytest.mark.parametrize("name", SINGLE)
def test_a_value_is_the_mean_of_what_each_query_adds(name):
    rng = np.random.default_rng(1)
    queries = [query(str(n), np.sort(rng.random(2) * 100).tolist()) for n in range(40)]
    predictions = [prediction(str(n), *np.sort(rng.random((6, 2)) * 100)) for n in range(0, 40, 2)]
    protocol = replace(protocols.protocol(name), decimals=None)
    parts = protocol.per_query(queries, predictions)
    values = protocol.score(queries, predictions).values
    assert list(parts) == list(values)
    for key, array in parts.items():
        assert array.shape == (40,)
        assert np.nanmean(array) == pytest.approx(values[key])


def test_a_table_says_what_was_compared():
    queries = [query(str(n), [0, 10]) for n in range(4)]
    full = [prediction(str(n), [0, 10]) for n in range(4)]
    protocol = protocols.protocol("strict")
    table = protocols.format_table(
        [
            ("mine", protocol.score(queries, full[:3], split="demo/test")),
            ("other", protocol.score(queries, full)),
            ("fewer", protocol.score(queries[:2], full[:2])),
        ]
    ).split("\n")
    assert table[0] == (
        "protocol strict (IoU >= m in seconds), split demo/test, 4 queries, 1 without prediction"
    )
    assert table[1].split() == ["%", "R@1,0.3", "0.5", "0.7", "mIoU", "R@5,0.3", "0.5", "0.7", "mIoU"]
    assert table[2].split() == ["mine", *["75.00"] * 8]
    assert table[3].endswith("(0 without prediction)")
    assert table[4].endswith("(2 queries, 0 without prediction)")


def test_a_table_marks_values_that_a_row_lacks():
    queries = [query("a", [0, 10])]
    protocol = protocols.protocol("point")
    four = protocol.score(queries, [prediction("a", *[[0, 10]] * 4)])
    five = protocol.score(queries, [prediction("a", *[[0, 10]] * 5)])
    table = protocols.format_table([("four", four), ("five", five)]).split("\n")
    assert table[2].split().count("-") == 6
    assert table[3].split().count("-") == 6


def test_a_table_refuses_to_mix_protocols():
    queries, predictions = [query("a", [0, 10])], [prediction("a", [0, 10])]
    with pytest.raises(ValueError, match="different protocols"):
        protocols.format_table([(name, score(name, queries, predictions)) for name in ("strict", "point")])
    with pytest.raises(ValueError, match="at least one row"):
        protocols.format_table([])
