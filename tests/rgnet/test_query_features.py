"""Query features: every layout gives the same vectors, and what is wrong is said with file, query and array."""

import io
import json
import pickle

import h5py
import numpy as np
import pytest

from rgnet.query_features.config import QueryFeaturesConfig, open_query_features, require_queries
from rgnet.query_features.convert import convert_query_features
from rgnet.query_features.sentences import ego4d_text, mad_text
from rgnet.query_features.store import (
    QueryFeatureStore,
    QueryVectors,
    WordVectorQueries,
    check_queries,
    normalise,
)
from rgnet.query_features.writing import write_query_features
from vmr_common.errors import UserError
from vmr_common.features.store import Manifest
from vmr_common.text.vectors import WordVectors
from vmr_common.types import Query
from vmr_train.known_features import require_expected


def make_arrays(count=3, token_dim=4, sentence_dim=3):
    rng = np.random.default_rng(7)
    return {
        f"a_{n}": {
            "token_features": rng.normal(size=(n + 2, token_dim)).astype(np.float32),
            "cls_features": rng.normal(size=sentence_dim).astype(np.float32),
        }
        for n in range(count)
    }


def write_hdf5(path, arrays):
    with h5py.File(path, "w") as file:
        for query, named in arrays.items():
            for name, array in named.items():
                file[f"{query}/{name}"] = array
    return path


def write_folder(path, arrays):
    path.mkdir()
    for query, named in arrays.items():
        np.savez_compressed(path / f"{query}.npz", allow_pickle=np.array(True), **named)  # the stray array
    return path


def write_archive(path, arrays):
    np.savez(path, **{f"{q}/{n}": array for q, named in arrays.items() for n, array in named.items()})
    return path


def write_lmdb(path, arrays):
    lmdb = pytest.importorskip("lmdb")
    with lmdb.open(str(path), map_size=1 << 20) as environment, environment.begin(write=True) as transaction:
        for query, named in arrays.items():
            value = io.BytesIO()
            np.savez_compressed(value, allow_pickle=np.array(True), **named)
            transaction.put(query.encode(), value.getvalue())
    return path


LAYOUTS = {
    "hdf5": (write_hdf5, "text.h5"),
    "folder": (write_folder, "text"),
    "archive": (write_archive, "text.npz"),
    "lmdb": (write_lmdb, "text_lmdb"),
}


@pytest.fixture(params=LAYOUTS)
def layout(request, tmp_path):
    write, name = LAYOUTS[request.param]
    return lambda arrays: write(tmp_path / name, arrays)


def query(identity, text="the red circle"):
    return Query(id=identity, video="v", text=text, duration=9.0)


def test_every_layout_gives_the_same_vectors(layout):
    arrays = make_arrays()
    with QueryFeatureStore(layout(arrays)) as store:
        assert store.queries() == sorted(arrays)
        assert (store.token_dim, store.sentence_dim) == (4, 3)
        for name, named in arrays.items():
            found = store.of(query(name))
            assert np.array_equal(found.tokens, named["token_features"])
            assert np.array_equal(found.sentence, named["cls_features"])
            assert found.tokens.dtype == found.sentence.dtype == np.float32
        assert "a_0" in store
        assert "b_0" not in store


def test_a_store_travels_to_workers_by_its_path(layout):
    store = QueryFeatureStore(layout(make_arrays()), token_dim=4)
    first = store["a_0"]
    copy = pickle.loads(pickle.dumps(store))
    assert np.array_equal(copy["a_0"].tokens, first.tokens)


@pytest.mark.parametrize("name", ["cls_features", "eot_features"])
@pytest.mark.parametrize("as_row", [False, True])
def test_both_names_and_shapes_of_the_sentence_vector_are_read(layout, name, as_row):
    arrays = {
        q: {"token_features": a["token_features"], name: a["cls_features"]} for q, a in make_arrays().items()
    }
    if as_row:
        arrays = {q: {**a, name: a[name][None]} for q, a in arrays.items()}
    with QueryFeatureStore(layout(arrays), sentence_dim=3) as store:
        assert np.array_equal(store["a_1"].sentence, make_arrays()["a_1"]["cls_features"])


def test_tokens_alone_are_enough_where_no_sentence_vector_is_asked_for(layout):
    path = layout({"q": {"token_features": np.ones((2, 4), np.float16)}})
    found = QueryFeatureStore(path)["q"]
    assert found.sentence is None
    assert found.tokens.tolist() == [[1.0] * 4] * 2
    with pytest.raises(
        UserError, match=r"query 'q' has no cls_features or eot_features .*sentence vector of width 3"
    ):
        QueryFeatureStore(path, sentence_dim=3)["q"]


def test_data_sets_without_groups_are_tokens(tmp_path):
    with h5py.File(tmp_path / "t.h5", "w") as file:
        file["q"] = np.ones((3, 2))
    assert QueryFeatureStore(tmp_path / "t.h5")["q"].tokens.shape == (3, 2)
    np.savez(tmp_path / "t.npz", q=np.ones((3, 2)), allow_pickle=np.array(True))
    with QueryFeatureStore(tmp_path / "t.npz") as store:
        assert store.queries() == ["q"]
        assert store["q"].tokens.shape == (3, 2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"token_features": np.full((2, 4), np.nan, np.float32)}, "token_features holds NaN or infinity"),
        ({"cls_features": np.array([1, np.inf, 0])}, "cls_features holds NaN or infinity"),
        ({"token_features": np.ones((2, 5))}, "token_features has width 5, expected 4"),
        ({"cls_features": np.ones(5)}, "cls_features has width 5, expected 3"),
        (
            {"cls_features": np.ones((2, 3))},
            r"cls_features has shape \(2, 3\), expected \(Da,\) or \(1, Da\)",
        ),
        ({"token_features": np.ones((0, 4))}, "token_features has no rows"),
        ({"token_features": np.ones(4)}, r"token_features has shape \(4,\)"),
        ({"token_features": None}, "has no token_features"),
        ({"token_features": np.array([["a"]], "S3")}, "holds values of type"),
    ],
)
def test_what_is_wrong_names_file_query_and_array(layout, change, message):
    named = {**make_arrays()["a_1"], **change}
    path = layout({"a_1": {name: array for name, array in named.items() if array is not None}})
    with pytest.raises(UserError, match=rf"{path.name}: query 'a_1'.*{message}"):
        QueryFeatureStore(path, token_dim=4, sentence_dim=3)["a_1"]


def test_a_missing_query_is_named(layout):
    with pytest.raises(UserError, match=r"query 'b/../c' is missing"):
        QueryFeatureStore(layout(make_arrays()))["b/../c"]


def test_objects_in_an_archive_are_never_unpickled(tmp_path):
    (tmp_path / "f").mkdir()
    np.savez(tmp_path / "f/q.npz", token_features=np.array([{1: 2}], object))
    with pytest.raises(UserError, match=r"q\.npz: .*pickled objects, which are never loaded"):
        QueryFeatureStore(tmp_path / "f")["q"]


def test_a_wrong_path_is_found_at_once(tmp_path):
    with pytest.raises(UserError, match="no such feature file"):
        QueryFeatureStore(tmp_path / "absent.h5")
    (tmp_path / "t.npz").write_bytes(b"no zip")
    with pytest.raises(UserError, match=r"t\.npz: not a readable npz file"):
        QueryFeatureStore(tmp_path / "t.npz").queries()


def test_written_features_read_back_with_their_manifest(tmp_path):
    with QueryFeatureStore(write_hdf5(tmp_path / "one.h5", make_arrays())) as store:
        items = [(name, store[name]) for name in store.queries()]
    items.append(("b_0", QueryVectors(np.ones((2, 4), np.float32))))
    assert write_query_features(tmp_path / "two.h5", items, Manifest(extractor="toy"), "float16") == 4
    with QueryFeatureStore(tmp_path / "two.h5") as store:
        assert (store.manifest.extractor, store.manifest.dim, store.manifest.dtype) == ("toy", 4, "float16")
        assert np.allclose(store["a_2"].tokens, items[2][1].tokens, atol=2e-3)
        assert np.allclose(store["a_2"].sentence, items[2][1].sentence, atol=2e-3)
        assert store["b_0"].sentence is None


@pytest.mark.parametrize(
    ("items", "message"),
    [
        ([("a/b", 4, 1.0)], "cannot name an entry"),
        ([("a", 4, 1.0), ("a", 4, 1.0)], "given twice"),
        ([("a", 4, 1.0), ("b", 5, 1.0)], "width 5, the others have 4"),
        ([("a", 4, 1e9)], "too large for float16"),
    ],
)
def test_what_cannot_be_written_leaves_no_file(tmp_path, items, message):
    vectors = ((name, QueryVectors(np.full((1, dim), value, np.float32))) for name, dim, value in items)
    with pytest.raises(UserError, match=message):
        write_query_features(tmp_path / "t.h5", vectors, Manifest(), "float16")
    assert list(tmp_path.iterdir()) == []


def test_normalising_cuts_and_divides_by_length_and_a_little():
    vectors = QueryVectors(np.array([[3, 4], [0, 0], [6, 8]], np.float32), np.array([0, 2], np.float32))
    done = normalise(vectors, 2)
    assert done.tokens.dtype == done.sentence.dtype == np.float32
    assert np.allclose(done.tokens, [[3 / 5.00001, 4 / 5.00001], [0, 0]], atol=1e-7)
    assert np.allclose(done.sentence, [0, 2 / 2.00001], atol=1e-7)
    assert normalise(QueryVectors(vectors.tokens), 9).sentence is None
    with pytest.raises(ValueError, match="max_tokens must be positive"):
        normalise(vectors, 0)


def test_texts_are_stripped_as_the_released_converters_do():
    assert ego4d_text(". Where is The mug??") == "where is the mug?"
    assert ego4d_text("..?Is it on? .") == "is it on?"
    assert mad_text(" SOMEONE sits. Down..") == "SOMEONE sits. Down."


# --- word vectors ---


@pytest.fixture
def words():
    return WordVectors(("red", "circle", "the"), np.eye(3, dtype=np.float32), "toy.txt")


def test_words_become_their_vectors_and_unknown_ones_are_dropped(words):
    found = WordVectorQueries(words).of(query("q", "The RED, wobbly circle."))
    assert found.tokens.tolist() == [[0, 0, 1], [1, 0, 0], [0, 1, 0]]
    assert found.sentence is None


def test_a_sentence_without_a_known_word_is_quoted(words):
    queries = WordVectorQueries(words)
    assert not queries.has(query("q", "??"))
    with pytest.raises(UserError, match=r"toy\.txt: no word of the sentence '\?\?' has a vector"):
        queries.of_text("??")


# --- in a configuration ---


def test_a_configuration_names_a_file_or_word_vectors(tmp_path):
    write_hdf5(tmp_path / "text.h5", make_arrays())
    (tmp_path / "words.txt").write_text("red 1 0\ncircle 0 1\n")
    store = open_query_features(QueryFeaturesConfig(path="text.h5", token_dim=4, sentence_dim=3), tmp_path)
    assert store.of(query("a_0")).sentence.shape == (3,)
    vectors = open_query_features(
        QueryFeaturesConfig(word_vectors="words.txt", token_dim=2), tmp_path, ["Red"]
    )
    assert vectors.of(query("a_0")).tokens.tolist() == [[1, 0]]
    assert [path.name for path in store.paths + vectors.paths] == ["text.h5", "words.txt"]
    for wrong in ({}, {"path": "a", "word_vectors": "b"}):
        with pytest.raises(UserError, match="either path"):
            QueryFeaturesConfig(token_dim=2, **wrong)
    with pytest.raises(UserError, match="sentence_dim 3 needs path"):
        QueryFeaturesConfig(token_dim=2, sentence_dim=3, word_vectors="b")
    with pytest.raises(UserError, match="vectors of width 2, expected 9"):
        open_query_features(QueryFeaturesConfig(word_vectors="words.txt", token_dim=9), tmp_path)


def test_features_of_another_make_are_refused(tmp_path):
    items = [("q", QueryVectors(np.ones((1, 2), np.float32)))]
    write_query_features(tmp_path / "t.h5", items, Manifest(extractor="one"))
    store = open_query_features(QueryFeaturesConfig(path="t.h5", token_dim=2), tmp_path)
    with pytest.raises(UserError, match="manifest says extractor 'one', the configuration expects 'two'"):
        require_expected({"extractor": "two"}, store, allow=False)


def test_queries_without_features_are_found_before_training(layout):
    store = QueryFeatureStore(layout(make_arrays()), token_dim=4)
    require_queries(store, {"train": [query("a_0")]})
    with pytest.raises(UserError, match=r"no features for 2 queries of train, for example 'b'"):
        require_queries(store, {"train": [query("a_0"), query("b"), query("c")]})
    problems = list(check_queries(store, [query("b"), query("a_1")]))
    assert len(problems) == 1
    assert "query 'b' is missing" in problems[0]


# --- commands ---


def write_split(path, ids, text="the red circle"):
    rows = (
        {"query_id": name, "video_id": "v", "duration": 9.0, "query": text, "windows": [[1, 2]]}
        for name in ids
    )
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_check_lists_every_query_without_features(layout, tmp_path, rgnet_data):
    path = layout(make_arrays())
    write_split(tmp_path / "a.jsonl", ["a_0", "x", "a_2", "y"])
    given = ("check", "--annotations", "a.jsonl", "--query-features", path.name)
    status, out, err = rgnet_data(tmp_path, *given)
    assert status == 2
    assert [line for line in out.splitlines() if "is missing" in line] == [
        line for line in out.splitlines() if "query 'x'" in line or "query 'y'" in line
    ]
    assert out.count("is missing") == 2
    assert "2 problems with 4 queries, listed above" in err
    write_split(tmp_path / "a.jsonl", ["a_0", "a_1"])
    status, out, _ = rgnet_data(tmp_path, *given, "--token-dim", "4", "--sentence-dim", "3")
    assert status == 0
    assert f"{path.name}: 2 queries, all well" in out
    status, out, _ = rgnet_data(tmp_path, *given, "--token-dim", "9")
    assert status == 2
    assert out.count("token_features has width 4, expected 9") == 2


def test_check_judges_a_file_alone_and_word_vectors(tmp_path, rgnet_data):
    write_hdf5(tmp_path / "t.h5", make_arrays())
    status, out, _ = rgnet_data(tmp_path, "check", "--query-features", "t.h5")
    assert (status, "t.h5: 3 queries, all well" in out) == (0, True)
    (tmp_path / "words.txt").write_text("red 1 0\n")
    write_split(tmp_path / "a.jsonl", ["q"], "Zyzzyva?")
    given = ("check", "--annotations", "a.jsonl", "--word-vectors", "words.txt")
    status, out, _ = rgnet_data(tmp_path, *given)
    assert status == 2
    assert "no word of the sentence 'Zyzzyva?' has a vector" in out
    write_split(tmp_path / "a.jsonl", ["q"], "Red?")
    assert rgnet_data(tmp_path, *given)[0] == 0
    assert rgnet_data(tmp_path, *given, "--token-dim", "2")[0] == 0
    assert "width 2, expected 3" in rgnet_data(tmp_path, *given, "--token-dim", "3")[2]


def test_every_layout_converts_to_one_file_of_groups(layout, tmp_path, rgnet_data):
    arrays = make_arrays()
    path = layout(arrays)
    given = ("convert", "--query-features", path.name, "--extractor", "toy text")
    out = tmp_path / "out.h5"
    status, said, err = rgnet_data(tmp_path, *given, "--out", str(out))
    assert (status, err) == (0, "")
    assert "3 queries written as float32" in said
    with QueryFeatureStore(out) as store:
        assert store.manifest.extractor == "toy text"
        for name, named in arrays.items():
            assert np.array_equal(store[name].tokens, named["token_features"])
            assert np.array_equal(store[name].sentence, named["cls_features"])


def test_a_conversion_of_many_queries_goes_on_where_it_was(tmp_path, monkeypatch):
    monkeypatch.setattr("rgnet.query_features.convert.PART_SIZE", 2)
    path = write_hdf5(tmp_path / "t.h5", make_arrays(5))
    store = QueryFeatureStore(path)

    def stop(count):
        done.append(count)
        if len(done) == 3:
            raise KeyboardInterrupt

    done = []
    with pytest.raises(KeyboardInterrupt):
        convert_query_features(store, tmp_path / "out.h5", Manifest(), step=stop)
    done = []
    assert convert_query_features(store, tmp_path / "out.h5", Manifest(), step=done.append) == 5
    assert done == [2, 1, 1, 1]  # the first part was whole
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["out.h5", "t.h5"]
    with QueryFeatureStore(tmp_path / "out.h5") as back:
        assert all(np.array_equal(back[q].tokens, store[q].tokens) for q in store.queries())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("check",), "nothing to check: give --query-features or --word-vectors"),
        (("check", "--query-features", "t.h5", "--word-vectors", "w.txt"), "and not both"),
        (("check", "--word-vectors", "w.txt"), "--word-vectors needs --split or --annotations"),
        (("convert", "--out", "o.h5"), "nothing to convert: give --query-features"),
        (("check", "--objects", "o.h5"), "unrecognized arguments: --objects o.h5"),
    ],
)
def test_options_that_say_nothing_to_do_are_one_line(tmp_path, rgnet_data, arguments, message):
    status, out, err = rgnet_data(tmp_path, *arguments)
    assert (status, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1
