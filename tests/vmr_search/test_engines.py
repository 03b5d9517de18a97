"""All engines answer as the plain form does: every video in a dictionary, scored one by one."""

import importlib.util
import threading

import numpy as np
import pytest

from search_toy import MemoryIndex
from vmr_common.errors import UserError
from vmr_search.engine.moment_index import Filter, VideoWindows
from vmr_search.folder import ENGINES, _engine_class

pytestmark = pytest.mark.e2e  # real decoders, engines or processes

SIZE = 16
HOSTILE = (
    "it's",
    "' OR 1=1 --",
    '"quoted"',
    "a,b",
    "π\\n",
    "%_*",
    "NULL",
    "a\nb",
    "`x`",
    "$1; DROP TABLE windows",
)
LIBRARIES = {"lance": "lancedb", "qdrant": "qdrant_client"}


@pytest.fixture(params=sorted(ENGINES))
def engine(request):
    if (library := LIBRARIES.get(request.param)) and importlib.util.find_spec(library) is None:
        pytest.skip(f"{library} is not installed")
    if request.param == "qdrant":
        pytest.importorskip("vmr_search.engine.qdrant")
    return _engine_class(request.param)


@pytest.fixture
def index(engine, tmp_path):
    made = engine.create(tmp_path / "index", size=SIZE, identity="model", dtype="float32")
    yield made
    made.close()


def drawn(names, *, seed=0, most=6):
    """Videos of one to some windows, a float32 vector each."""
    rng = np.random.default_rng(seed)
    made = []
    for name in names:
        count = int(rng.integers(1, most))
        starts = np.sort(rng.uniform(0, 20, size=count)).round(1)
        starts[0] *= rng.integers(2)  # windows at the beginning
        windows = np.stack([starts, starts + rng.uniform(0, 9, size=count).round(1)], 1)
        vectors = rng.normal(size=(count, SIZE)).astype(np.float32)
        made.append(VideoWindows(name, float(windows.max()) + 1.0, windows, vectors))
    return made


def one(name, vectors):
    with np.errstate(over="ignore"):
        vectors = np.asarray(vectors, dtype=np.float32)
    starts = np.arange(len(vectors), dtype=np.float64)
    return VideoWindows(name, float(len(vectors)), np.stack([starts, starts + 1], 1), vectors)


def require_same(found, expected):
    """The same videos, windows and order, and the same scores up to the order of a sum."""
    for mine, theirs in zip(found, expected, strict=True):
        assert [video.video for video in mine] == [video.video for video in theirs]
        for a, b in zip(mine, theirs, strict=True):
            assert a.duration == b.duration
            np.testing.assert_array_equal(a.windows, b.windows)
            np.testing.assert_allclose(a.scores, b.scores, rtol=1e-5, atol=1e-5)


WHERES = [
    {},
    {"after": 5.0},
    {"before": 3.5},
    {"after": 2.0, "before": 12.0, "shortest": 1.0, "longest": 4.5},
    {"shortest": 8.0},
    {"videos": frozenset({"v3", "v7", "not there", *HOSTILE[:3]})},
    {"videos": frozenset(), "after": 1.0},
]


def test_answers_are_those_of_the_plain_form(index):
    plain = MemoryIndex(SIZE)
    corpus = drawn([*(f"v{number}" for number in range(40)), *HOSTILE])
    assert index.add(corpus[:30]) == 30
    index.add(corpus[30:])
    plain.add(corpus)
    queries = np.random.default_rng(1).normal(size=(3, SIZE)).astype(np.float32)
    for where in WHERES:
        for n, exact in ((1, True), (7, False), (500, True)):
            asked = Filter(**where)
            require_same(index.search(queries, n, asked, exact=exact), plain.search(queries, n, asked))
    assert index.videos() == plain.videos()
    assert index.durations() == plain.durations()
    assert len(index) == 50
    assert index.search(queries[:0], 3) == []
    index.verify()


def test_replaced_and_removed_videos_are_gone(index):
    corpus = drawn([*(f"v{number}" for number in range(12)), *HOSTILE], seed=3)
    index.add(corpus)
    newer = drawn(["v2", HOSTILE[0], "new"], seed=4)
    assert index.replace(newer) == 3
    index.remove(["v0", HOSTILE[1]])
    plain = MemoryIndex(SIZE)
    gone = {"v0", HOSTILE[1], *(video.video for video in newer)}
    plain.add([video for video in corpus if video.video not in gone] + newer)
    queries = np.random.default_rng(2).normal(size=(2, SIZE)).astype(np.float32)
    for _ in range(2):
        require_same(index.search(queries, 100), plain.search(queries, 100))
        assert set(index.videos()) == set(plain.videos())
        assert "v0" not in index
        assert "v2" in index
        index.compact()
    index.verify()


def test_of_equal_scores_the_video_that_was_added_first_comes_first(index):
    rows = np.eye(SIZE, dtype=np.float32)[:2]
    names = [f"v{number}" for number in np.random.default_rng(0).permutation(30)]
    index.add(one(name, rows) for name in names[:13])
    for name in names[13:]:
        index.add([one(name, rows[::-1])])
    for n in (3, 30):
        found = index.search(rows[:1], n)[0]
        assert [video.video for video in found] == names[:n]


@pytest.mark.parametrize(("dtype", "off"), [("float16", 2e-3), ("float32", 1e-6)])
def test_vectors_are_kept_in_the_type_of_the_index(engine, tmp_path, dtype, off):
    made = engine.create(tmp_path / "index", size=SIZE, identity="", dtype=dtype)
    video = drawn(["v"], seed=5)[0]
    made.add([video])
    query = np.ones(SIZE, dtype=np.float32)
    expected = video.vectors.astype(dtype).astype(np.float32) @ query
    found = made.search(query[None] * 1000, 1)[0][0].scores / 1000
    np.testing.assert_allclose(found, expected, atol=2e-6)
    np.testing.assert_allclose(found, video.vectors @ query, atol=SIZE * off)
    with pytest.raises(UserError, match=r"too.*finite|too"):
        made.add([one("too", np.full((1, SIZE), 1e39 if dtype == "float32" else 1e6))])


def test_what_cannot_be_added_or_removed_is_named_and_changes_nothing(index):
    index.add(drawn(["a", "b"]))
    before = index.search(np.ones((1, SIZE), np.float32), 10)
    wrong = [
        (lambda: index.add(drawn(["a"])), "'a'"),
        (lambda: index.add(drawn(["c", "c"])), "'c'"),
        (lambda: index.replace(drawn(["c", "c"])), "'c'"),
        (lambda: index.add([one("c", np.ones((2, SIZE - 1)))]), "'c'.*shape"),
        (lambda: index.add([one("c", np.full((1, SIZE), np.nan))]), "'c'.*finite"),
        (
            lambda: index.add([VideoWindows("c", 1.0, np.array([[2.0, 1.0]]), np.ones((1, SIZE), "f4"))]),
            "'c'",
        ),
        (lambda: index.remove(["a", "z"]), "'z'"),
        (lambda: index.search(np.ones((1, SIZE + 1), np.float32), 1), "shape"),
        (lambda: index.search(np.full((1, SIZE), np.nan, np.float32), 1), "finite"),
    ]
    for do, named in wrong:
        with pytest.raises(UserError, match=named) as error:
            do()
        assert "\n" not in str(error.value)
    require_same(index.search(np.ones((1, SIZE), np.float32), 10), before)
    assert sorted(index.videos()) == ["a", "b"]
    index.add([])
    index.remove([])


def test_an_index_is_opened_as_what_it_is(engine, tmp_path):
    place = tmp_path / "index"
    with pytest.raises(UserError):
        engine.open(place, size=SIZE, identity="model")
    engine.create(place, size=SIZE, identity="model").close()
    made = engine.create(place, size=SIZE, identity="model")  # an empty one is begun again
    made.add(drawn(["a"]))
    made.close()
    for size, identity in ((SIZE + 1, "model"), (SIZE, "other")):
        with pytest.raises(UserError, match="index"):
            engine.open(place, size=size, identity=identity)
    with pytest.raises(UserError, match="already"):
        engine.create(place, size=SIZE, identity="model")
    opened = engine.open(place, size=SIZE, identity="model")
    assert opened.videos() == ["a"]
    opened.close()


def test_searches_go_on_while_videos_are_replaced(index):
    """Each is there once at any instant, old or new."""
    rows = np.eye(SIZE, dtype=np.float32)
    names = [f"v{number}" for number in range(6)]
    index.add(one(name, rows[:2]) for name in names)
    wrong, done = [], threading.Event()

    def look():
        while not done.is_set():
            try:
                found = index.search(rows[:1], 10)[0]
            except Exception as error:
                wrong.append(error)
                return
            names_found = sorted(video.video for video in found)
            if names_found != names or any(len(video.scores) not in (2, 3) for video in found):
                wrong.append([(video.video, video.scores) for video in found])

    reader = threading.Thread(target=look)
    reader.start()
    for number in range(8):
        index.replace(one(name, rows[: 3 - number % 2]) for name in names[:3])
    done.set()
    reader.join()
    assert not wrong
