"""The files of an index are held against what an index can say, whatever their checksums."""

import hashlib
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from cfmr.index.shards import block_sum
from cfmr.index.video_index import VideoIndex
from vmr_common.errors import UserError

MOMENTS = [(0.0, 0.4), (0.3, 0.7), (0.6, 1.0)]
SIZE = 16


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("index") / "i"
    index = VideoIndex.create(folder, model="synthetic", moments=MOMENTS, size=SIZE)
    for first in (0, 5):
        videos = [f"v{n}" for n in range(first, first + 5)]
        index.add_vectors(videos, dict.fromkeys(videos, 10.0), np.full((5, 3, SIZE), 0.25, np.float16))
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
    path.write_text(json.dumps({"format": 1, "checksum": checksum, "content": content}))


def rewrite_table(folder: Path, change) -> None:
    """Changes the first shard's table, and all checksums with it."""

    def follow(content) -> None:
        shard = content["shards"][0]
        path = folder / "shards" / f"{shard['name']}.json"
        table = json.loads(path.read_text())
        path.write_text(json.dumps(change(table) or table))
        shard["table_sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()

    rewrite_manifest(folder, follow)


def answered(folder: Path) -> str:
    """What an index says to being searched, and to every change."""
    said = []
    for use in (
        lambda index: index.search_vectors(torch.full((1, SIZE), 0.25), 3),
        lambda index: index.videos(),
        lambda index: index.remove(["v1"]),
        lambda index: index.compact(4),
    ):
        with pytest.raises(UserError) as error:
            use(VideoIndex.open(folder))
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
        (put("moments", value=None), "key content.moments: found None, expected a list"),
        (put("moments", value=[]), "key moments: found none"),
        (put("moments", 1, value=[0.5]), r"key content.moments\[1\]: found \[0.5\]"),
        (put("moments", 1, 0, value=float("nan")), r"key content.moments\[1\]\[0\]: found nan"),
        (put("moments", 1, value=[0.9, 0.1]), r"key moments\[1\]: found \[0.9, 0.1\]"),
        (put("moments", 1, value=[0, 1e308]), r"key moments\[1\]: found \[0, 1e\+308\]"),
        (put("moments", value=[[0, 1]] * 2), r"the index says float16 \(5, 2, 16\)"),
        (put("size", value=-16), "key size: found -16"),
        (put("size", value=True), "key content.size: found True, expected a whole number"),
        (put("size", value=10**9), "the index says float16"),
        (put("dtype", value="object"), "key content.dtype: found 'object'"),
        (put("dtype", value="float32"), "the index says float32"),
        (put("model", value=7), "key content.model: found 7, expected text"),
        (put("model_sha256", value="../x"), "key model_sha256: found '../x', expected a SHA-256"),
        (put("features", value=[]), "key content.features"),
        (put("features", value={"width": 3}), "key features: unknown field 'width'"),
        (put("more", value=1), "unknown key 'more'"),
        (put("shards", value={}), "key content.shards: found {}"),
        (put("shards", 0, value="s"), r"key content.shards\[0\]: found 's', expected an object"),
        (
            put("shards", 0, "name", value="../../etc/passwd"),
            r"key shards\[0\].name: found '../../etc/passwd'",
        ),
        (put("shards", 0, "name", value="/" * 24), r"key shards\[0\].name: found"),
        (put("shards", 0, "name", value=None), r"key content.shards\[0\].name: found None"),
        (put("shards", 0, "videos", value=0), r"key shards\[0\].videos: found 0"),
        (put("shards", 0, "videos", value=10**15), r"key shards\[0\].videos: found 10+, expected 1 to"),
        (put("shards", 0, "videos", value=6), r"the index says float16 \(6, 3, 16\)"),
        (put("shards", 0, "size", value=-1), r"key shards\[0\].size: found -1"),
        (put("shards", 0, "size", value=10**30), r"key shards\[0\].size: found 10+"),
        (put("shards", 0, "size", value=12), "the index says 12: cut short or changed"),
        (
            put("shards", 0, "removed", value=[5]),
            r"key shards\[0\].removed: found \[5\], expected ascending rows below 5",
        ),
        (put("shards", 0, "removed", value=[-1]), r"key shards\[0\].removed"),
        (put("shards", 0, "removed", value=[2, 1]), r"key shards\[0\].removed"),
        (put("shards", 0, "removed", value=[1, 1]), r"key shards\[0\].removed"),
        (put("shards", 0, "removed", value=[True]), r"key content.shards\[0\].removed\[0\]: found True"),
        (put("shards", 0, "removed", value=None), r"key content.shards\[0\].removed: found None"),
        (
            lambda content: content["shards"].append(content["shards"][0]),
            "key shards: lists '[0-9a-f]{24}' twice",
        ),
        (lambda content: content["shards"][0].pop("size"), r"key 'size' is missing"),
    ],
)
def test_a_manifest_that_no_index_has_is_named_with_its_key(folder, change, message):
    rewrite_manifest(folder, change)
    with pytest.raises(UserError, match=message) as error:
        VideoIndex.open(folder)
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
        '{"format": 1, "content": null, "checksum": null}',
        "[" * 100_000 + "]" * 100_000,
        '{"format": 1, "format": 1, "content": {}}',
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
        (put("sums", value=[]), "key 'sums' holds 0 entries, expected 1"),
        (put("sums", 0, value=None), r"key sums\[0\]: found None"),
    ],
)
def test_a_table_that_no_shard_has_is_named_with_its_key(folder, change, message):
    rewrite_table(folder, change)
    with pytest.raises(UserError, match=message) as error:
        VideoIndex.open(folder).videos()
    assert "/shards/" in str(error.value)
    answered(folder)


def test_a_table_of_more_bytes_than_ids_need_is_not_read(folder):
    name = json.loads((folder / "manifest.json").read_text())["content"]["shards"][0]["name"]
    os.truncate(folder / "shards" / f"{name}.json", 1 << 40)  # a hole, no bytes on the disk
    assert "expected at most" in answered(folder)


@pytest.mark.parametrize("name", ["manifest.json", "npy", "json"])
def test_a_pipe_or_a_folder_in_place_of_a_file_is_refused_and_not_waited_for(folder, name):
    path = folder / name if name == "manifest.json" else next(folder.glob(f"shards/*.{name}"))
    path.unlink()
    os.mkfifo(path)
    assert "expected a regular file" in answered(folder)
    path.unlink()
    path.mkdir()
    assert "expected a regular file" in answered(folder)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_vectors_that_are_not_finite_are_never_searched(tmp_path, value, dtype):
    index = VideoIndex.create(
        tmp_path / "i", model="m", moments=MOMENTS, size=SIZE, dtype=np.dtype(dtype).name
    )
    index.add_vectors(["a", "b"], {"a": 1.0, "b": 2.0}, np.full((2, 3, SIZE), 0.25, dtype))
    path = next(index.folder.glob("shards/*.npy"))
    vectors = np.load(path)
    vectors[1, 2, 3] = value
    np.save(path, vectors)

    def follow(table) -> None:
        table["sums"] = [block_sum(vectors)]

    rewrite_table(index.folder, follow)
    rewrite_manifest(
        index.folder, put("shards", 0, "vectors_sha256", value=hashlib.sha256(path.read_bytes()).hexdigest())
    )
    opened = VideoIndex.open(index.folder)
    for use in (lambda: opened.search_vectors(torch.full((1, SIZE), 0.25)), opened.verify, opened.compact):
        with pytest.raises(UserError, match="from video 'a' on hold NaN or infinity"):
            use()


@pytest.mark.parametrize(
    "header",
    [
        {"descr": "<f2", "fortran_order": False, "shape": (5, 3, 16, 1)},
        {"descr": "<f2", "fortran_order": True, "shape": (5, 3, 16)},
        {"descr": "<i2", "fortran_order": False, "shape": (5, 3, 16)},
        {"descr": "|O", "fortran_order": False, "shape": (5, 3, 16)},
        {"descr": "<f2", "fortran_order": False, "shape": (10**15, 3, 16)},
    ],
)
def test_a_header_that_says_another_array_is_refused(folder, header):
    path = next(folder.glob("shards/*.npy"))
    data = path.read_bytes()[-5 * 3 * SIZE * 2 :]
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        file.write(data)
    assert str(path) in answered(folder)


def test_what_could_not_be_read_again_is_not_written(tmp_path):
    for moments, size in (([], 4), ([(0.0, float("nan"))], 4), ([(0.5, 0.2)], 4), (MOMENTS, 0)):
        with pytest.raises(UserError, match=r"key (content.)?(moments|size)"):
            VideoIndex.create(tmp_path / "i", model="m", moments=moments, size=size)
    assert not (tmp_path / "i").exists()
    index = VideoIndex.create(tmp_path / "i", model="m", moments=MOMENTS, size=SIZE)
    one = np.full((1, 3, SIZE), 0.25, np.float16)
    for video, seconds in (
        ("\udcff", 1.0),
        ("", 1.0),
        ("a", float("nan")),
        ("a", float("inf")),
        ("a", 0.0),
        ("a", "1"),
    ):
        with pytest.raises(UserError, match="video"):
            index.add_vectors([video], {video: seconds}, one)
    with pytest.raises(UserError, match="not finite"):
        index.add_vectors(["a"], {"a": 1.0}, np.full((1, 3, SIZE), np.nan, np.float16))
    with pytest.raises(UserError, match="expected shorter ids"):
        index.add_vectors(["a" * 2_000_000], {"a" * 2_000_000: 1.0}, one)
    with pytest.raises(UserError, match="shard_videos: found 0, expected 1 to 65,536"):
        index.compact(0)
    assert len(VideoIndex.open(tmp_path / "i")) == 0
