"""The files of an index are held against what an index can say, whatever their checksums."""

import hashlib
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from vmr_common.errors import UserError
from vmr_search.engine.moment_index import VideoWindows
from vmr_search.engine.scan.scan_index import ScanIndex
from vmr_search.engine.scan.shards import block_sum

SIZE = 16
WINDOWS = np.array([(0.0, 4.0), (3.0, 7.0), (6.0, 10.0)])


def video(name, seconds=10.0, vectors=None, windows=WINDOWS) -> VideoWindows:
    vectors = np.full((3, SIZE), 0.25, np.float16) if vectors is None else vectors
    return VideoWindows(name, seconds, windows, vectors)


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("index") / "i"
    index = ScanIndex.create(folder, size=SIZE)
    for first in (0, 5):
        index.add([video(f"v{n}") for n in range(first, first + 5)])
    return folder


@pytest.fixture
def folder(tmp_path, whole) -> Path:
    shutil.copytree(whole, tmp_path / "i")
    return tmp_path / "i"


def rewrite_manifest(folder: Path, change) -> None:
    """Changes the content, and the checksum with it."""
    path = folder / "manifest.json"
    content = json.loads(path.read_text())["content"]
    change(content)
    checksum = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    path.write_text(json.dumps({"format": 2, "checksum": checksum, "content": content}))


def rewrite_table(folder: Path, change) -> None:
    """Changes the first shard's table, and all checksums with it."""

    def follow(content) -> None:
        shard = content["shards"][0]
        path = folder / f"{shard['name']}.json"
        table = json.loads(path.read_text())
        path.write_text(json.dumps(change(table) or table))
        shard["table_sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()

    rewrite_manifest(folder, follow)


def answered(folder: Path) -> str:
    """What an index says to being searched, and to every change."""
    said = []
    for use in (
        lambda index: index.search(np.full((1, SIZE), 0.25, np.float32), 3),
        lambda index: index.videos(),
        lambda index: index.remove(["v1"]),
        lambda index: index.compact(4),
    ):
        with pytest.raises(UserError) as error:
            use(ScanIndex(folder))
        said.append(str(error.value))
    assert len(set(said)) == 1
    return said[0]


def put(*keys, value):
    """A function that puts a value at a place."""

    def change(content) -> None:
        for key in keys[:-1]:
            content = content[key]
        content[keys[-1]] = value

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (put("size", value=-16), "key size: found -16"),
        (put("size", value=True), "key size: found True, expected a whole number"),
        (put("size", value=10**9), "key size: found 1000000000"),
        (put("size", value=17), r"480 bytes|720 bytes, the index says"),
        (put("dtype", value="object"), "key dtype: found 'object'"),
        (put("dtype", value="float32"), "the index says 1200: cut short or changed"),
        (put("identity", value=7), "key identity: found 7, expected text"),
        (put("more", value=1), "unknown key 'more'"),
        (put("shards", value={}), "key shards: found {}"),
        (put("shards", 0, value="s"), r"key shards\[0\]: found 's', expected an object"),
        (
            put("shards", 0, "name", value="../../etc/passwd"),
            r"key shards\[0\].name: found '../../etc/passwd'",
        ),
        (put("shards", 0, "name", value="/" * 24), r"key shards\[0\].name: found"),
        (put("shards", 0, "name", value=None), r"key shards\[0\].name: found None"),
        (put("shards", 0, "videos", value=0), r"key shards\[0\].videos: found 0"),
        (put("shards", 0, "videos", value=10**15), r"key shards\[0\].videos: found 10+, expected 1 to"),
        (put("shards", 0, "videos", value=6), r"key 'videos' holds 5 entries, expected 6"),
        (put("shards", 0, "rows", value=4), r"key shards\[0\].rows: found 4, expected at least one of each"),
        (put("shards", 0, "rows", value=10**30), r"key shards\[0\].rows: found 10+"),
        (put("shards", 0, "rows", value=12), "720 bytes, the index says 576: cut short or changed"),
        (
            put("shards", 0, "removed", value=[5]),
            r"key shards\[0\].removed: found \[5\], expected ascending numbers below 5",
        ),
        (put("shards", 0, "removed", value=[-1]), r"key shards\[0\].removed"),
        (put("shards", 0, "removed", value=[2, 1]), r"key shards\[0\].removed"),
        (put("shards", 0, "removed", value=[1, 1]), r"key shards\[0\].removed"),
        (put("shards", 0, "removed", value=[True]), r"key shards\[0\].removed\[0\]: found True"),
        (put("shards", 0, "removed", value=None), r"key shards\[0\].removed: found None"),
        (
            lambda content: content["shards"].append(content["shards"][0]),
            "key shards: lists '[0-9a-f]{24}' twice",
        ),
        (lambda content: content["shards"][0].pop("rows"), r"key 'rows' is missing"),
    ],
)
def test_a_manifest_that_no_index_has_is_named_with_its_key(folder, change, message):
    rewrite_manifest(folder, change)
    with pytest.raises(UserError, match=message) as error:
        ScanIndex(folder).videos()
    assert str(folder) in str(error.value)
    answered(folder)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        "[]",
        "{}",
        '{"content": []}',
        '{"format": 2, "content": null, "checksum": null}',
        "[" * 100_000 + "]" * 100_000,
        '{"format": 2, "format": 2, "content": {}}',
        '{"format": ' + "9" * 10_000 + "}",
        "\udcff",
    ],
)
def test_a_manifest_that_is_something_else_is_one_error(folder, text):
    (folder / "manifest.json").write_text(text, errors="surrogateescape")
    assert "manifest.json: " in answered(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda table: [table], "expected an object"),
        (put("videos", value=None), "key videos: found None"),
        (put("videos", 0, value=7), r"key videos\[0\]: found 7, expected text"),
        (put("videos", 0, value="v1"), "key 'videos' holds an id twice"),
        (put("videos", 0, value="\ud800"), "holds half a surrogate pair"),
        (lambda table: table["videos"].pop() and None, "key 'videos' holds 4 entries, expected 5"),
        (put("durations", 2, value=float("nan")), r"key durations\[2\]: found nan"),
        (put("durations", 2, value=float("inf")), r"key durations\[2\]: found inf"),
        (put("durations", 2, value="10"), r"key durations\[2\]: found '10'"),
        (put("durations", 2, value=0), "key 'durations' holds 0, expected positive seconds"),
        (put("durations", 2, value=-3.5), "key 'durations' holds -3.5"),
        (put("durations", 2, value=1e308), r"key 'durations' holds 1e\+308"),
        (put("windows", 0, value=0), "key 'windows' counts other windows than the 15"),
        (put("windows", 0, value=4), "key 'windows' counts other windows than the 15"),
        (put("windows", 0, value=3.5), r"key windows\[0\]: found 3.5"),
        (put("norm", value=-1.0), "key 'norm': found -1.0"),
        (put("norm", value=float("nan")), "key norm: found nan"),
        (put("sums", value=[]), "key 'sums' holds 0 entries, expected 1"),
        (put("sums", 0, value=None), r"key sums\[0\]: found None"),
    ],
)
def test_a_table_that_no_shard_has_is_named_with_its_key(folder, change, message):
    rewrite_table(folder, change)
    with pytest.raises(UserError, match=message) as error:
        ScanIndex(folder).videos()
    assert str(folder) in str(error.value)
    answered(folder)


def test_a_table_of_more_bytes_than_ids_need_is_not_read(folder):
    name = json.loads((folder / "manifest.json").read_text())["content"]["shards"][0]["name"]
    os.truncate(folder / f"{name}.json", 1 << 40)  # a hole, no bytes on the disk
    assert "expected at most" in answered(folder)


@pytest.mark.parametrize("name", ["manifest.json", "bin", "json"])
def test_a_pipe_or_a_folder_in_place_of_a_file_is_refused_and_not_waited_for(folder, name):
    path = folder / name if name == "manifest.json" else next(folder.glob(f"[0-9a-f]*.{name}"))
    path.unlink()
    os.mkfifo(path)
    assert "expected a regular file" in answered(folder)
    path.unlink()
    path.mkdir()
    assert "expected a regular file" in answered(folder)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("what", ["vectors", "windows"])
def test_numbers_that_are_not_finite_are_never_searched(tmp_path, value, dtype, what):
    index = ScanIndex.create(tmp_path / "i", size=SIZE, dtype=dtype)
    index.add([video("a"), video("b")])
    shard, path = index._shards[0], next(index.folder.glob("*.bin"))
    arrays = {"vectors": shard.vectors.copy(), "windows": shard.windows.copy()}
    arrays[what][4, 1] = value
    path.unlink()
    path.write_bytes(b"".join(array.tobytes() for array in arrays.values()))
    rewrite_table(index.folder, put("sums", value=[block_sum(**arrays)]))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    rewrite_manifest(index.folder, put("shards", 0, "sha256", value=digest))
    opened = ScanIndex(index.folder)
    query = np.full((1, SIZE), 0.25, np.float32)
    for use in (lambda: opened.search(query, 3), opened.verify, lambda: opened.compact(1)):
        with pytest.raises(UserError, match="from video 'a' on hold NaN or infinity"):
            use()


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"name": "\udcff"}, "half a surrogate pair"),
        ({"name": ""}, "id is empty"),
        ({"name": 7}, "expected text as id"),
        ({"name": "a" * 2_000_000}, "expected shorter ids"),
        ({"seconds": float("nan")}, "duration must be"),
        ({"seconds": 0.0}, "duration must be positive"),
        ({"seconds": "1"}, "duration must be a number"),
        ({"windows": WINDOWS[:0], "vectors": np.zeros((0, SIZE), np.float16)}, "at least one"),
        ({"windows": WINDOWS[:, ::-1]}, r"window \[4.0, 0.0\]"),
        ({"windows": WINDOWS - 1}, r"window \[-1.0, 3.0\]"),
        ({"windows": WINDOWS * np.nan}, "window"),
        ({"vectors": np.zeros((2, SIZE), np.float16)}, r"vectors of shape \(2, 16\), expected \(3, 16\)"),
        ({"vectors": np.zeros((3, SIZE), np.int16)}, "vectors of int16"),
        ({"vectors": np.full((3, SIZE), np.nan, np.float16)}, "not finite"),
        ({"vectors": np.full((3, SIZE), 1e6, np.float32)}, "not finite in float16"),
    ],
)
def test_what_could_not_be_read_again_is_not_written(folder, wrong, said):
    index = ScanIndex(folder)
    with pytest.raises(UserError, match=said):
        index.add([video(**{"name": "a", **wrong})])
    assert len(ScanIndex(folder)) == 10


def test_sizes_that_no_index_has_are_refused(tmp_path, folder):
    for wrong in ({"size": 0}, {"size": 1 << 40}, {"size": 4, "dtype": "int8"}):
        with pytest.raises(UserError, match=r"size: found|dtype: found 'int8', expected float16 or float32"):
            ScanIndex.create(tmp_path / "new", **wrong)
    assert not (tmp_path / "new").exists()
    with pytest.raises(UserError, match="shard_videos: found 0, expected 1 to 65,536"):
        ScanIndex(folder).compact(0)
    with pytest.raises(UserError, match=r"expected \(Q, 16\)"):
        ScanIndex(folder).search(np.zeros((1, 3), np.float32), 1)
    with pytest.raises(UserError, match="not finite"):
        ScanIndex(folder).search(np.full((1, SIZE), np.nan, np.float32), 1)
    with pytest.raises(UserError, match="n: found 0"):
        ScanIndex(folder).search(np.zeros((1, SIZE), np.float32), 0)
    with pytest.raises(UserError, match="holds an index already"):
        ScanIndex.create(folder, size=SIZE)
