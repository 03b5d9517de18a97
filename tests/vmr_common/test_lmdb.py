"""Feature stores in LMDB: what is read, by whom, and every way in which one can be wrong."""

import io
import json
import multiprocessing
import pickle
import struct
import subprocess
import sys

import h5py
import lmdb
import numpy as np
import pytest

from processes import run_to_end
from vmr_common.cli.data import main
from vmr_common.errors import UserError
from vmr_common.features.checking import check_features
from vmr_common.features.store import FeatureStore

pytestmark = pytest.mark.e2e  # real decoders, engines or processes

RNG = np.random.default_rng(11)


def archive(**arrays):
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)
    return file.getvalue()


def write_lmdb(path, values, *, folder=True):
    environment = lmdb.open(str(path), map_size=1 << 24, subdir=folder)
    with environment, environment.begin(write=True) as transaction:
        for key, value in values.items():
            transaction.put(key.encode(), value)
    return path


@pytest.fixture
def videos(tmp_path):
    data = {f"clip-{n}": RNG.normal(size=(n + 3, 4)).astype(np.float32) for n in range(6)}
    values = {video: archive(features=array) for video, array in data.items()}
    return write_lmdb(tmp_path / "video.lmdb", values), data


@pytest.fixture
def words(tmp_path):
    """Token features and sentence vectors of three queries, in the variants that are around."""
    tokens = {f"a1_{n}": RNG.normal(size=(n + 2, 5)).astype(np.float32) for n in range(3)}
    sentences = RNG.normal(size=(3, 7)).astype(np.float32)
    values = {
        "a1_0": archive(token_features=tokens["a1_0"], cls_features=sentences[0]),
        "a1_1": archive(
            token_features=tokens["a1_1"], cls_features=sentences[1:2], allow_pickle=np.array(False)
        ),
        "a1_2": archive(token_features=tokens["a1_2"], eot_features=sentences[2]),
    }
    return write_lmdb(tmp_path / "text.lmdb", values), tokens, sentences


@pytest.mark.parametrize("folder", [True, False])
def test_videos_are_read_from_a_folder_and_from_one_file(tmp_path, folder):
    values = RNG.normal(size=(5, 3)).astype(np.float16)
    path = write_lmdb(tmp_path / "x", {"v": archive(features=values)}, folder=folder)
    with FeatureStore(path, dim=3) as store:
        assert store["v"].dtype == np.float32
        assert np.array_equal(store["v"], values)
        assert (store.videos(), store.length("v"), "v" in store, "w" in store) == (["v"], 5, True, False)
        assert store.manifest is None


def test_a_manifest_may_lie_beside_the_data(videos):
    (videos[0] / "manifest.json").write_text(json.dumps({"extractor": "EgoVLP", "dim": 4}))
    assert FeatureStore(videos[0]).manifest.extractor == "EgoVLP"


def test_tokens_and_sentence_vectors_are_read_by_their_keys(words):
    path, tokens, sentences = words
    by_default, vectors = FeatureStore(path), FeatureStore(path, key="cls_features")
    for row, query in enumerate(by_default.videos()):
        assert np.array_equal(by_default[query], tokens[query])
        assert np.array_equal(vectors[query], sentences[row : row + 1])
        assert vectors.length(query) == 1
    with pytest.raises(
        UserError, match=r"text\.lmdb: video 'a1_0': no array 'x' \(found: token_features, cls"
    ):
        FeatureStore(path, key="x")["a1_0"]


def test_several_stores_share_one_environment_and_close_on_their_own(videos):
    path, data = videos
    first, second = FeatureStore(path), FeatureStore([path, path])
    assert np.array_equal(first["clip-0"], data["clip-0"])
    assert second["clip-0"].shape == (3, 8)
    first.close()
    assert second["clip-1"].shape == (4, 8)
    assert np.array_equal(first["clip-1"], data["clip-1"])
    first.close()
    second.close()
    with lmdb.open(str(path), readonly=True, lock=False) as free:  # refused while anyone here has it open
        assert free.stat()["entries"] == len(data)


@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
@pytest.mark.e2e
def test_workers_of_every_start_method_read_what_the_parent_reads(videos, method):
    path, data = videos
    store = FeatureStore(path)
    assert np.array_equal(store["clip-0"], data["clip-0"])  # open in the parent when the workers start
    with multiprocessing.get_context(method).Pool(2) as workers:
        results = workers.map(store.__getitem__, sorted(data) * 3)
    for video, features in zip(sorted(data) * 3, results, strict=True):
        assert np.array_equal(features, data[video])
    assert np.array_equal(store["clip-5"], data["clip-5"])


def test_convert_writes_what_the_lmdb_holds(words, tmp_path, capsys):
    path, tokens, sentences = words
    for key, rows in (("token_features", 2), ("cls_features", 1)):
        out = tmp_path / f"{key}.h5"
        options = [
            "--features",
            str(path),
            "--key",
            key,
            "--out",
            str(out),
            "--extractor",
            "CLIP ViT-B/32 text",
        ]
        assert main(["convert", *options]) == 0
        assert "3 videos written as float32" in capsys.readouterr().out
        with h5py.File(out) as file:
            assert sorted(file) == sorted(tokens)
            assert file["a1_0"].shape[0] == rows
            assert json.loads(file.attrs["manifest"])["extractor"] == "CLIP ViT-B/32 text"
    tokens_back = FeatureStore(tmp_path / "token_features.h5")
    assert all(np.array_equal(tokens_back[query], array) for query, array in tokens.items())
    assert np.array_equal(FeatureStore(tmp_path / "cls_features.h5")["a1_2"], sentences[2:3])


def test_what_is_wrong_with_an_entry_is_one_error_each(tmp_path):
    good = archive(features=np.ones((50, 3)))
    path = write_lmdb(
        tmp_path / "x",
        {
            "good": good,
            "cut": good[:-40],
            "pickled": archive(features=np.array([[None]], dtype=object)),
            "nan": archive(features=np.full((2, 3), np.nan)),
            "flat": archive(features=np.ones(3)),
            "two": archive(x=np.ones((2, 3)), y=np.ones((2, 3))),
            "no archive": pickle.dumps([1.0]),
        },
    )
    store = FeatureStore(path)
    videos = [*store.videos(), "absent", "", "long" * 200, "\ud800"]
    problems = [line for video in videos for line in check_features(store, [video], dim=3).lines()]
    expected = {
        "cut": "is not a readable npz archive (",
        "flat": "array 'features' has shape (3,), expected (T, D)",
        "nan": "array 'features' holds NaN or infinity",
        "no archive": "is not a readable npz archive (File is not a zip file)",
        "pickled": "array 'features' cannot be read: it holds pickled objects, which are never loaded",
        "two": "no array 'features' (found: x, y)",
        "absent": "is missing (the LMDB holds 7 entries)",
    }
    assert len(problems) == len(expected) + 3
    for video, words in expected.items():
        (line,) = [line for line in problems if f"video {video!r}" in line]
        assert words in line
        assert str(path) in line
        assert "\n" not in line
    for video in ("cut", "no archive", "flat"):
        with pytest.raises(UserError, match=r"readable npz archive|expected \(T, D\)"):
            store.length(video)


@pytest.mark.parametrize("keep", [0.3, 0.6, 0.9])
def test_a_file_that_is_cut_off_is_an_error_and_never_a_crash(tmp_path, keep):
    values = {f"v{n}": archive(features=RNG.normal(size=(60, 20))) for n in range(20)}
    path = write_lmdb(tmp_path / "x.lmdb", values, folder=False)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep)])
    with pytest.raises(UserError, match=r"x\.lmdb: [\d,]+ bytes, expected [\d,]+: the file is cut off"):
        FeatureStore(path)["v7"]


PAGE = 4096


def damaged(path, places):
    """Changes bytes: (page, place in it, new bytes)."""
    data = bytearray(path.read_bytes())
    for page, place, new in places:
        data[page * PAGE + place : page * PAGE + place + len(new)] = new
    path.write_bytes(data)
    return path


def page_of(path, flags):
    """The first page of a kind."""
    data = path.read_bytes()
    pages = range(2, len(data) // PAGE)
    return next(page for page in pages if struct.unpack_from("<H", data, page * PAGE + 10)[0] == flags)


NUMBER = struct.Struct("<Q").pack
READ = """
import sys
from vmr_common.features.store import FeatureStore
from vmr_common.errors import UserError
for path in sys.argv[1:]:
    try:
        store = FeatureStore(path)
        print([store[video].shape for video in store.videos()])
    except UserError as error:
        print(error)
"""
DAMAGES = [  # kind of page, and what is changed in it, or in page 0 or 1
    (0, [(0, 24 + 16, NUMBER(7))]),  # pages of 7 bytes
    (0, [(1, 16, b"none")]),
    (0, [(page, 16 + 24 + 48 + 40, NUMBER(1 << 50)) for page in (0, 1)]),  # the root
    (0, [(page, 16 + 24 + 48 + 4, b"\4\0") for page in (0, 1)]),  # several values for a key
    (1, [(None, 0, NUMBER(99))]),
    (1, [(None, 12, b"\xff\xff")]),
    (1, [(None, 16, b"\xff\xff")]),
    (2, [(None, 10, b"\x20\0")]),
    (2, [(None, 12, b"\x12\0\x11\0")]),
    (4, [(None, 0, NUMBER(1))]),
    (4, [(None, 12, b"\xff\xff\xff\0")]),
]


def test_damaged_pages_are_an_error_and_never_a_crash(tmp_path):
    values = {f"v{n:03d}": archive(features=RNG.normal(size=(60 if n == 5 else 2, 20))) for n in range(30)}
    whole = write_lmdb(tmp_path / "x.lmdb", values, folder=False)
    paths = [whole]
    for number, (flags, changes) in enumerate(DAMAGES):
        paths.append(tmp_path / f"{number}.lmdb")
        paths[-1].write_bytes(whole.read_bytes())
        place = page_of(whole, flags) if flags else None
        damaged(paths[-1], [(place if page is None else page, *rest) for page, *rest in changes])
    done = run_to_end([sys.executable, "-c", READ, *paths])  # in a process of its own, which may be killed
    assert (done.returncode, done.stderr) == (0, "")
    first, *others = done.stdout.splitlines()
    assert first.count("20") == len(values)
    assert len(others) == len(DAMAGES)
    for path, line in zip(paths[1:], others, strict=True):
        assert line.startswith(f"{path}: not a readable LMDB (")


def test_pages_in_a_circle_end(tmp_path):
    values = {f"v{n:03d}": archive(features=RNG.normal(size=(2, 20))) for n in range(30)}
    path = write_lmdb(tmp_path / "x.lmdb", values, folder=False)
    branch = page_of(path, 1)
    data = path.read_bytes()
    (first,) = struct.unpack_from("<H", data, branch * PAGE + 16)
    damaged(path, [(branch, first, struct.pack("<HH", branch, 0))])
    with pytest.raises(UserError, match=rf"not a readable LMDB \(page {branch} is damaged\)"):
        FeatureStore(path).videos()


def test_a_folder_whose_data_file_is_no_lmdb_is_named(tmp_path):
    (tmp_path / "data.mdb").write_bytes(b"nothing of the kind")
    with pytest.raises(UserError, match="not a readable LMDB"):
        FeatureStore(tmp_path)["v"]


@pytest.mark.e2e
def test_without_the_package_the_message_says_what_to_install(videos):
    code = "import sys; sys.modules['lmdb'] = None\nfrom vmr_common.cli.data import main\nsys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", code, "info", "--features", str(videos[0])]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == (
        f"error: {videos[0]} is an LMDB; reading it needs the package lmdb: pip install 'vmr-common[lmdb]'\n"
    )
