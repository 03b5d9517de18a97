"""Memory in proportion to the queries: at most a kilobyte each, while a file is read and of what describes it."""

import tracemalloc

import numpy as np
import pytest
from query_memory import READ, write

from vmr_common.cli.info import split_lines
from vmr_common.errors import UserError
from vmr_common.evaluation import pack, protocol
from vmr_common.evaluation.baselines import ConstantWindowBaseline
from vmr_common.splits.load import custom_split
from vmr_common.types import Prediction, Query

pytestmark = pytest.mark.e2e

FEW, MANY, MOST_BYTES = 1_000, 4_000, 1_000


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    made = {}
    for count in (FEW, MANY):
        made[count] = tmp_path_factory.mktemp(str(count))
        write(made[count], count)
    return made


def read(folder, kind):
    return custom_split(folder / kind, format=kind, durations=folder / "durations.csv")


def peak(run):
    """Bytes that a call needs at its largest, what it returns included."""
    tracemalloc.start()
    try:
        result = run()
        return tracemalloc.get_traced_memory()[1], result
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("kind", READ)
def test_reading_takes_less_than_a_kilobyte_per_query(folders, kind):
    read(folders[FEW], kind)  # what is made once, such as compiled patterns, is no growth
    (few, _), (many, split) = (peak(lambda n=n: read(folders[n], kind)) for n in (FEW, MANY))
    assert len(split.queries) == MANY
    assert (many - few) / (MANY - FEW) < MOST_BYTES


def test_describing_a_split_takes_a_fifth_of_a_kilobyte_more(folders, tmp_path, monkeypatch):
    monkeypatch.setattr("vmr_common.evaluation.baselines._BLOCK", 256)  # what is tried at once is no growth
    monkeypatch.setattr("vmr_common.cli.info._AT_ONCE", 256)
    splits = {n: read(folders[n], "canonical") for n in (FEW, MANY)}
    few, many = (peak(lambda n=n: split_lines([splits[n]], tmp_path))[0] for n in (FEW, MANY))
    assert (many - few) / (MANY - FEW) < MOST_BYTES / 5


def test_videos_are_one_text_for_all_their_queries(folders):
    queries = read(folders[FEW], "canonical").queries
    assert len({id(query.video) for query in queries}) == len({query.video for query in queries}) == FEW // 20


def test_predictions_show_parts_of_fixed_arrays_and_copies_of_others():
    fixed = np.zeros((3, 2, 2))
    fixed.setflags(write=False)
    made = [Prediction(query="0", video="v", moments=part, scores=fixed[0, 0]) for part in fixed]
    assert all(one.moments.base is fixed for one in made)
    moments, scores = np.array([[1.0, 2.0]]), np.array([1.0])
    shown = moments[:]
    shown.setflags(write=False)
    copies = [Prediction(query="0", video="v", moments=given, scores=scores) for given in (moments, shown)]
    moments[:] = scores[:] = 7.0  # neither may change what was predicted
    for copy in copies:
        assert copy.moments.tolist() == [[1, 2]]
        assert copy.scores.tolist() == [1]
        assert not copy.moments.flags.writeable


def test_blocks_of_queries_give_what_all_at_once_give(monkeypatch):
    rng = np.random.default_rng(0)
    queries = [
        Query(id=str(n), video="v", text="", duration=30.0, moments=np.sort(rng.random((1 + n % 3, 2)) * 30))
        for n in range(40)
    ]
    predictions = [
        Prediction(query=query.id, video="v", moments=np.sort(rng.random((7, 2)) * 30), scores=np.zeros(7))
        for query in queries[:33]
    ]
    whole = [protocol(name).score(queries, predictions).values for name in ("strict", "proposal-map", "viga")]
    bias = ConstantWindowBaseline.fit(queries).windows
    monkeypatch.setattr("vmr_common.evaluation.packing._BLOCK", 16)
    monkeypatch.setattr("vmr_common.evaluation.packing._ROWS", 3)
    monkeypatch.setattr("vmr_common.evaluation.baselines._BLOCK", 5)
    names = ("strict", "proposal-map", "viga")
    assert [protocol(name).score(queries, predictions).values for name in names] == whole
    assert ConstantWindowBaseline.fit(queries).windows.tolist() == bias.tolist()


def test_one_query_of_very_many_windows_does_not_make_the_table_of_all(monkeypatch):
    monkeypatch.setattr("vmr_common.evaluation.packing._FREE", 10_000)
    queries = [Query(id=str(n), video="v", text="", duration=9.0, moments=[[1, 2]]) for n in range(100)]
    many = np.tile([1.0, 2.0], (500, 1))
    wide = Prediction(query="7", video="v", moments=many, scores=np.ones(500))
    with pytest.raises(UserError, match="500 windows predicted for query '7' are too many beside the others"):
        pack(queries, [wide])
    assert pack(queries, [wide], limit=5).moments.shape == (100, 5, 2)
    queries[3] = Query(id="3", video="v", text="", duration=9.0, moments=many)
    with pytest.raises(UserError, match="500 targets of query '3' are too many"):
        pack(queries, [])
