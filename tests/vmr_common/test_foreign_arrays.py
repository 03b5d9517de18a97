"""Files of arrays from anywhere: nothing outside them is read or allocated on their word, errors are one line."""

import io
import os
import struct
import sys
import tracemalloc
import zipfile
import zlib

import h5py
import numpy as np
import pytest

from leorn.object_features.regions import RegionFolder
from leorn.object_features.store import ObjectStore
from processes import run_to_end
from rgnet.query_features.store import QueryFeatureStore
from vmr_common.errors import UserError
from vmr_common.features.checking import check_features
from vmr_common.features.hdf5 import Hdf5File
from vmr_common.features.npz import Archive, read_file
from vmr_common.features.store import FeatureStore

ROWS = np.arange(12, dtype=np.float32).reshape(3, 4)

# --- HDF5 files that reach into others ---


def external_storage(file, name, shape, elsewhere):
    file.create_dataset(name, shape, "f4", external=[(str(elsewhere), 0, h5py.h5f.UNLIMITED)])


def external_link(file, name, shape, elsewhere):
    file[name] = h5py.ExternalLink(elsewhere, "/x")


def soft_to_external_link(file, name, shape, elsewhere):
    file["hop"] = h5py.ExternalLink(elsewhere, "/x")
    file[name] = h5py.SoftLink("/hop")


def link_of_an_unknown_kind(file, name, shape, elsewhere):
    external_link(file, name, shape, elsewhere)
    path = file.filename
    file.close()
    with open(path, "rb") as whole:
        data = whole.read()
    step = name.rsplit("/", 1)[-1].encode()
    message = b"\x08\x40" + bytes([len(step)]) + step  # a link with a type, which is external, and its name
    assert data.count(message) == 1
    with open(path, "wb") as changed:
        changed.write(data.replace(message, b"\x08\x51" + message[2:]))


def virtual(file, name, shape, elsewhere, maxshape=None):
    source = h5py.VirtualSource(str(elsewhere), "x", shape=shape, maxshape=maxshape)
    layout = h5py.VirtualLayout(shape, "f4", maxshape=maxshape)
    layout[...] = source
    file.create_virtual_dataset(name, layout)


def virtual_and_growing(file, name, shape, elsewhere):
    layout = h5py.VirtualLayout(shape, "f4", maxshape=(None, *shape[1:]))
    source = h5py.VirtualSource(str(elsewhere), "x", shape=shape, maxshape=(None, *shape[1:]))
    unlimited = h5py.h5s.UNLIMITED
    layout[:unlimited, ...] = source[:unlimited, ...]
    file.create_virtual_dataset(name, layout)


def virtual_in_itself(file, name, shape, elsewhere):
    file["x"] = np.ones(shape, "f4")
    virtual(file, name, shape, ".")


REACHING = [
    external_storage,
    external_link,
    soft_to_external_link,
    link_of_an_unknown_kind,
    virtual,
    virtual_and_growing,
    virtual_in_itself,
]

READERS = {  # every way to read HDF5: name of the data set in the file, its shape, how it is read
    "features": ("v", (3, 4), lambda path: FeatureStore(path)["v"]),
    "length": ("v", (3, 4), lambda path: FeatureStore(path).length("v")),
    "key": ("v/k", (3, 4), lambda path: FeatureStore(path, key="k")["v"]),
    "objects": ("v", (3, 4, 9), lambda path: ObjectStore(path)["v"]),
    "confidence": ("v/confidence", (3, 4), lambda path: ObjectStore(path)["v"]),
    "by kind": ("bbox/v", (3, 4, 4), lambda path: ObjectStore(path)["v"]),
    "frames": ("v", (3, 4, 9), lambda path: ObjectStore(path).read("v", np.array([1]))),
    "tokens": ("v/token_features", (3, 4), lambda path: QueryFeatureStore(path)["v"]),
    "tokens alone": ("v", (3, 4), lambda path: QueryFeatureStore(path)["v"]),
}


def write_reaching(path, reach, name, shape, elsewhere):
    with h5py.File(path, "w") as file:
        beside = {"confidence": {"features": (3, 4, 5), "boxes": (3, 4, 4)}}
        for kind, like in beside.get(name.rpartition("/")[2], {}).items():
            file[f"v/{kind}"] = np.ones(like, "f4")
        if name.startswith("bbox/"):
            file["feats/v"], file["confidence/v"] = np.ones((3, 4, 5), "f4"), np.ones((3, 4), "f4")
        if "/" in name:
            file.require_group(name.rpartition("/")[0])
        reach(file, name, shape, elsewhere)
    return path


READ_ALL = """
import sys
sys.path[:0] = sys.argv[1:3]
from pathlib import Path
from test_foreign_arrays import READERS, REACHING, write_reaching
from vmr_common.errors import UserError
folder = Path(sys.argv[3])
for reach in REACHING:
    for kind, (name, shape, read) in READERS.items():
        path = write_reaching(folder / "x.h5", reach, name, shape, folder / "pipe")
        try:
            print("READ", reach.__name__, kind, read(path))
        except UserError as error:
            print(str(error).count("never"), reach.__name__, kind, error)
"""


@pytest.mark.e2e
def test_nothing_outside_an_hdf5_file_is_read_or_even_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe")  # whoever opens it for reading waits for ever
    here = os.path.dirname(__file__)
    done = run_to_end([sys.executable, "-c", READ_ALL, os.path.dirname(here), here, tmp_path])
    lines = done.stdout.splitlines()
    assert (done.returncode, len(lines)) == (0, len(REACHING) * len(READERS)), done.stderr
    assert [line for line in lines if not line.startswith("1 ")] == []


def test_a_link_out_of_the_file_in_the_middle_of_a_way_is_refused_everywhere(tmp_path):
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["v/k"] = ROWS
        file["v/token_features"] = ROWS
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["v"] = h5py.ExternalLink(tmp_path / "other.h5", "/v")
        file["direct"] = h5py.ExternalLink(tmp_path / "other.h5", "/")
    store = FeatureStore(tmp_path / "x.h5", key="k")
    for use in (
        lambda: store["v"],
        lambda: "v" in store,
        lambda: store.length("v"),
        lambda: store["direct/v/k"],
        lambda: QueryFeatureStore(tmp_path / "x.h5")["v"],
        lambda: "v" in ObjectStore(tmp_path / "x.h5"),
    ):
        with pytest.raises(UserError, match="is a link out of the file, which is never followed"):
            use()
    assert store.videos() == ["direct", "v"]


def test_links_inside_a_file_are_followed_and_circles_end(tmp_path):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["deep/er/v"] = ROWS
        file["hard"] = file["deep/er/v"]
        file["soft"] = h5py.SoftLink("deep/./er//v")
        file["deep/up"] = h5py.SoftLink("/soft")
        file["deep/beside"] = h5py.SoftLink("er/v")
        file["round"], file["about"] = h5py.SoftLink("/about"), h5py.SoftLink("/round")
        file["self"] = file["/"]
        file["nowhere"] = h5py.SoftLink("/deep/nothing")
    store = FeatureStore(tmp_path / "x.h5")
    for name in ("hard", "soft", "deep/up", "deep/beside", "self/self/self/deep/er/v"):
        for _ in range(2):  # the second time by the quick way
            assert np.array_equal(store[name], ROWS)
    for name in ("round", "about"):
        with pytest.raises(UserError, match="is a link in a circle"):
            store[name]
    with pytest.raises(UserError, match="'nowhere' is missing"):
        store["nowhere"]


# --- what HDF5 files hold and declare ---


def made(dtype, **options):
    return lambda file: file.create_dataset("v", (3, 4), dtype, **options)


def of_type(kind):
    return lambda file: h5py.h5d.create(file.id, b"v", kind, h5py.h5s.create_simple((3, 4)))


@pytest.mark.parametrize(
    "write",
    {
        "complex": made("c8"),
        "bool": made("?"),
        "text": made("S3"),
        "texts": made(h5py.string_dtype()),
        "record": made([("a", "f4")]),
        "array": made(np.dtype(("f4", (2,)))),
        "opaque": made("V5"),
        "lists": made(h5py.vlen_dtype("f4")),
        "references": made(h5py.ref_dtype),
        "regions": made(h5py.regionref_dtype),
        "enumeration": made(h5py.enum_dtype({"a": 1, "b": 2}, "i4")),
        "bit field": of_type(h5py.h5t.STD_B8LE),
        "time": of_type(h5py.h5t.UNIX_D32LE),
        "type": lambda file: file.__setitem__("v", np.dtype("f4")),
        "nothing": lambda file: file.create_dataset("v", data=h5py.Empty("f4")),
        "no rows": lambda file: file.create_dataset("v", (0, 4), "f4", maxshape=(None, 4)),
    }.items(),
    ids=lambda item: item[0],
)
def test_what_is_no_array_of_numbers_is_no_features(tmp_path, write):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        write[1](file)
    for store in (
        FeatureStore(tmp_path / "x.h5"),
        QueryFeatureStore(tmp_path / "x.h5"),
        ObjectStore(tmp_path / "x.h5"),
    ):
        with pytest.raises(UserError, match=r"x\.h5: (video|query) 'v'") as caught:
            store["v"]
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("dtype", ["f2", ">f4", "<f8", "g", "u1", ">i8"])
@pytest.mark.parametrize("options", [{}, {"maxshape": (None, None)}, {"compression": "lzf"}])
def test_numbers_of_any_size_and_order_are_features(tmp_path, dtype, options):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.create_dataset("v", data=ROWS.astype(dtype), **options)
    assert np.array_equal(FeatureStore(tmp_path / "x.h5")["v"], ROWS)


def unpacks_to_more(file):
    chunk = file.create_dataset("v", (10, 16), "f4", chunks=(10, 16), compression="gzip", shuffle=True).id
    # a mask says that the first filter was left out, which changes nothing about the second
    chunk.write_direct_chunk((0, 0), zlib.compress(bytes(280 << 20), 9), filter_mask=1)


def packed_twice(file):
    plan = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plan.set_chunk((3, 4))
    plan.set_deflate(9)
    plan.set_deflate(9)
    h5py.h5d.create(file.id, b"v", h5py.h5t.IEEE_F32LE, h5py.h5s.create_simple((3, 4)), plan)


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda f: f.create_dataset("v", (10**7, 4096), "f4"), "declares 163,840,000,000 bytes"),
        (lambda f: f.create_dataset("v", (10**6, 64), "f4", chunks=(1, 1)), "declares 64,000,000 chunks"),
        (
            lambda f: f.create_dataset("v", (4, 16), "f4", maxshape=(None, 16), chunks=(1 << 25, 16)),
            "a chunk of it, declares 2,147,483,648 bytes",
        ),
        (unpacks_to_more, "unpacks to more than the 640 bytes that it declares"),
        (packed_twice, "is packed by deflate, deflate"),
        (lambda f: f.create_dataset("v", data=ROWS.astype("i4"), scaleoffset=0), "is packed by scaleoffset"),
    ],
    ids=["rows", "chunks", "chunk", "packed", "packed twice", "unknown packing"],
)
def test_what_an_hdf5_file_declares_is_held_against_what_it_holds(tmp_path, write, message):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        write(file)
    for store in (FeatureStore(tmp_path / "x.h5"), QueryFeatureStore(tmp_path / "x.h5")):
        with pytest.raises(UserError, match=f"'v'.* {message}"):
            store["v"]


def test_large_chunks_that_unpack_to_what_they_declare_are_read(tmp_path):
    values = np.random.default_rng(0).normal(size=(6000, 16))
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.create_dataset("v", data=values, chunks=values.shape, compression="gzip", fletcher32=True)
    assert np.array_equal(FeatureStore(tmp_path / "x.h5")["v"], values.astype(np.float32))


@pytest.mark.parametrize(
    "value",
    [
        5,
        1.5,
        np.ones(3),
        ["a", "b"],
        h5py.Empty("S1"),
        np.bytes_(b"\xff\xfe{"),
        np.void(b"{}"),
        "[" * 60_000,
        '{"fps": "x"}',
        '{"fps": NaN}',
        '{"fps": -1}',
        '{"dim": 2.5}',
        '{"dim": true}',
        '{"normalised": 1}',
        '{"extractor": ["a"]}',
        '{"dim": 3, "dim": 4}',
        '{"source": "\\ud800"}',
        f'{{"dim": {"9" * 5000}}}',
    ],
    ids=repr,
)
def test_a_manifest_of_another_kind_or_type_is_one_line(tmp_path, value):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["v"] = ROWS
        file.attrs["manifest"] = value
    for store in (FeatureStore, QueryFeatureStore, ObjectStore):
        with pytest.raises(UserError, match=r"x\.h5: .*manifest") as caught:
            _ = store(tmp_path / "x.h5").manifest
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 600
    assert np.array_equal(FeatureStore(tmp_path / "x.h5")["v"], ROWS)


@pytest.mark.e2e
def test_a_manifest_in_a_heap_without_an_end_is_one_line(tmp_path):
    path = tmp_path / "x.h5"
    with h5py.File(path, "w") as file:
        file.attrs["manifest"] = '{"extractor": "toy"}'
    whole = path.read_bytes()
    heap = whole.index(b"GCOL")
    first = 16 + struct.unpack_from("<Q", whole, heap + 24)[0] + 7 & ~7  # to the thing after the first
    for place, size in ((heap + 24, 2**64 - 1), (heap + 16 + first + 8, 0), (heap + 8, 2**40)):
        changed = bytearray(whole)
        struct.pack_into("<Q", changed, place, size)
        path.write_bytes(changed)
        # in a process of its own, which can be ended when HDF5 never comes back
        read = "import sys; from vmr_common.features.store import FeatureStore; FeatureStore(sys.argv[1]).manifest"
        done = run_to_end([sys.executable, "-c", read, path])
        assert done.stderr.splitlines()[-1].startswith(
            f"vmr_common.errors.UserError: {path}: the attribute 'manifest'"
        )
    path.write_bytes(whole)
    assert FeatureStore(path).manifest.extractor == "toy"


def test_a_name_that_is_no_text_is_told_where_names_are_listed(tmp_path):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["v"] = ROWS
        h5py.h5d.create(file.id, b"\xff\xfe", h5py.h5t.IEEE_F32LE, h5py.h5s.create_simple((4, 16)))
    store = FeatureStore(tmp_path / "x.h5")
    assert np.array_equal(store["v"], ROWS)
    for use in (store.videos, lambda: store["w"], lambda: store["\udcff\udcfe"]):
        with pytest.raises(UserError, match=r"the name b'\\xff\\xfe' is not UTF-8 text"):
            use()
    assert "\udcff" not in store


# --- npy files and npz archives ---


def npy(header, data=bytes(96)):
    text = header.encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + data


def described(shape, kind="'<f4'"):
    return f"{{'descr': {kind}, 'fortran_order': False, 'shape': {shape}, }}\n"


@pytest.mark.parametrize(
    "content",
    [
        npy(described("(True, 16)")),
        npy(described("(-10, 16)")),
        npy(described("(10, -16)")),
        npy(described("(100000000, 16)")),
        npy(described("(9223372036854775807, 9223372036854775807)")),
        npy(described("(2, 13)")),
        npy(described("(1,) * 99")),
        npy(described("(" * 3000)),
        npy(described("(4, 4)", "('<f4', (1000000000,))")),
        npy(described("(4, 4)", "'<M8[s]'")),
        npy(described("(4, 4)", "'<c8'")),
        npy(described("(4, 4)", "'|b1'")),
        npy(described("(4, 6)", "'<U1'")),
        npy(described("(4, 4)", "'|O'")),
        npy("{}"),
        b"\x93NUMPY\x02\x00" + struct.pack("<I", 1 << 31) + bytes(100),
        b"\x93NUMPY\x09\x00" + struct.pack("<I", 10) + bytes(100),
        b"\x93NUMPY",
        b"\x80\x04]\x94.",
    ],
)
def test_npy_files_that_declare_what_they_do_not_hold_are_one_line(tmp_path, content):
    (tmp_path / "v.npy").write_bytes(content)
    np.savez(tmp_path / "inside.npz")
    with zipfile.ZipFile(tmp_path / "z.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("features.npy", content)
    store = FeatureStore(tmp_path)
    for video in ("v", "z"):
        for use in (store.__getitem__, store.length):
            with pytest.raises(UserError, match=rf"{video}\.np[yz]") as caught:
                use(video)
            assert "\n" not in str(caught.value)
            assert len(str(caught.value)) < 600


def packed(name="features.npy", values=ROWS, method=zipfile.ZIP_DEFLATED):
    content, file = io.BytesIO(), io.BytesIO()
    np.lib.format.write_array(content, values)
    with zipfile.ZipFile(file, "w", method) as archive:
        archive.writestr(name, content.getvalue())
    return bytearray(file.getvalue())


def with_directory(offset, form, value):
    """A change of the same field in the file's header (30 bytes) and in the directory's entry (46 bytes)."""
    data = packed()
    directory = data.rfind(b"PK\x01\x02")
    struct.pack_into(form, data, offset, value)
    struct.pack_into(form, data, directory + offset + 2, value)
    return data


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (with_directory(6, "<H", 1), "is encrypted"),
        (with_directory(6, "<H", 1 << 6), "strong encryption"),
        (with_directory(8, "<H", 99), "is compressed by method 99"),
        (packed(method=zipfile.ZIP_LZMA), "is compressed by method 14"),
        (packed(method=zipfile.ZIP_BZIP2), "is compressed by method 12"),
        (
            with_directory(22, "<I", 0xFFFFFFF0),
            r"declares 4,294,967,280 bytes .*but the file holds \d\d\d? of",
        ),
        (with_directory(14, "<I", 12345), "Bad CRC-32"),
        (with_directory(6, "<H", 1 << 11).replace(b"features", b"\xff\xfeatures"), "can't decode"),
    ],
)
def test_zip_archives_of_every_odd_kind_are_one_line(tmp_path, data, message):
    (tmp_path / "v.npz").write_bytes(data)
    with pytest.raises(UserError, match=rf"v\.npz: .*{message}"):
        FeatureStore(tmp_path)["v"]


def test_names_inside_an_archive_are_names_and_no_ways(tmp_path):
    for number, name in enumerate(["/etc/x.npy", "../x.npy", "a/../../x.npy", "C:\\x.npy", "é.npy"]):
        (tmp_path / f"v{number}.npz").write_bytes(packed(name))
        with Archive(tmp_path / f"v{number}.npz", "here") as archive:
            assert archive.names == [name.removesuffix(".npy")]
            assert np.array_equal(archive.read(archive.names[0]), ROWS)
    before = sorted(tmp_path.iterdir())
    assert np.array_equal(FeatureStore(tmp_path)["v1"], ROWS)
    assert sorted(tmp_path.iterdir()) == before
    for name in ("x.txt", "x/"):
        (tmp_path / "w.npz").write_bytes(packed(name))
        with pytest.raises(UserError, match=r"no array 'features' \(found: nothing\)"):
            FeatureStore(tmp_path)["w"]


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_two_arrays_of_one_name_are_refused(tmp_path):
    for path in (tmp_path / "v.npz", tmp_path / "queries.npz"):
        with zipfile.ZipFile(path, "w") as archive:
            for values in (ROWS, ROWS + 1):
                content = io.BytesIO()
                np.save(content, values)
                archive.writestr("features.npy", content.getvalue())
    for use in (lambda: FeatureStore(tmp_path)["v"], QueryFeatureStore(tmp_path / "queries.npz").queries):
        with pytest.raises(UserError, match="holds the array 'features' twice"):
            use()
    np.savez(tmp_path / "both.npz", **{"q": ROWS, "q/token_features": ROWS})
    with pytest.raises(UserError, match="query 'q' has its tokens twice"):
        QueryFeatureStore(tmp_path / "both.npz")["q"]


def test_an_archive_in_an_archive_and_zip64_are_told_apart(tmp_path):
    with zipfile.ZipFile(tmp_path / "v.npz", "w") as archive:
        archive.writestr("features.npy", bytes(packed()))
        with archive.open("whole.npy", "w", force_zip64=True) as member:
            np.lib.format.write_array(member, ROWS)
    with pytest.raises(UserError, match=r"array 'features' cannot be read \(the magic string"):
        FeatureStore(tmp_path)["v"]
    assert np.array_equal(FeatureStore(tmp_path, key="whole")["v"], ROWS)


def test_a_pipe_or_a_device_among_the_files_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "v.npy")
    os.mkfifo(tmp_path / "manifest.json")
    (tmp_path / "w.npz").symlink_to("/dev/zero")
    np.save(tmp_path / "far", ROWS)
    (tmp_path / "far.npy").rename(tmp_path / "far")
    (tmp_path / "x.npy").symlink_to(tmp_path / "far")
    store = FeatureStore(tmp_path)
    assert store.videos() == ["x"]
    assert np.array_equal(store["x"], ROWS)
    lines = list(check_features(store, ["v", "w"]).lines())
    assert [line.partition(": ")[2][:10] for line in lines] == ["expected a", "video 'v' ", "video 'w' "]
    with pytest.raises(UserError, match=r"manifest\.json: expected a regular file"):
        _ = store.manifest
    for make in (FeatureStore, ObjectStore, QueryFeatureStore):
        for path in (tmp_path / "v.npy", "/dev/zero"):
            with pytest.raises(UserError, match=str(path)):
                make(path)["v"]
    with pytest.raises(UserError, match="expected a regular file"):
        read_file(tmp_path / "v.npy")
    with pytest.raises(UserError, match="is missing"):
        store["v" * 5000]


@pytest.mark.parametrize("values", [np.ones((3, 4), "c8"), np.full((3, 4), "1"), np.ones((3, 4), "?")])
def test_regions_of_another_type_than_numbers_are_refused(tmp_path, values):
    whole = {"features": np.ones((3, 4)), "conf": np.ones(3), "boxes": np.full((3, 4), 0.5)}
    for name in whole:
        np.savez(tmp_path / "v.npz", **{**whole, name: values.reshape(3, -1)[:, : whole[name].size // 3]})
        with pytest.raises(
            UserError, match=rf"v\.npz: array '{name}' holds values of type .*, expected numbers"
        ):
            RegionFolder(tmp_path, dim=4)["v"]


@pytest.mark.parametrize(
    "more",
    [
        {"image_w": np.ones(3), "image_h": np.ones(2)},
        {"image_w": 0, "image_h": 5},
        {"image_w": np.nan, "image_h": 5},
        {"num_boxes": np.ones(7)},
        {"width": "9", "height": "9"},
    ],
)
def test_sizes_and_counts_that_do_not_fit_are_one_line(tmp_path, more):
    whole = {"features": np.ones((3, 4)), "conf": np.ones(3), "boxes": np.full((3, 4), 0.5)}
    np.savez(tmp_path / "v.npz", **whole, **more)
    with pytest.raises(UserError, match=r"v\.npz: "):
        RegionFolder(tmp_path, dim=4)["v"]


# --- growth ---


def reads_of(monkeypatch, use, count):
    """How many times the directory of an archive, or a list of names, was read for so many queries."""
    work = []
    with monkeypatch.context() as counted:
        directory, names = zipfile.ZipFile._RealGetContents, Hdf5File.names
        counted.setattr(
            zipfile.ZipFile,
            "_RealGetContents",
            lambda self: (directory(self), work.append(len(self.filelist)))[0],
        )
        counted.setattr(
            Hdf5File, "names", lambda self, *group: (found := names(self, *group), work.append(len(found)))[0]
        )
        use(count)
    return sum(work)


@pytest.mark.parametrize("missing", [False, True])
@pytest.mark.parametrize("layout", ["npz", "hdf5"])
def test_reading_every_query_is_work_in_proportion_to_their_number(tmp_path, monkeypatch, layout, missing):
    def use(count):
        queries = [f"q{number}" for number in range(count)]
        path = tmp_path / f"{count}.{layout}"
        if layout == "npz":
            np.savez(path, **{f"{query}/token_features": ROWS for query in queries})
        else:
            with h5py.File(path, "w") as file:
                for query in queries:
                    file[f"{query}/token_features"] = ROWS
        with QueryFeatureStore(path) as store:
            for query in store.queries():
                if not missing:
                    store[query]
                    continue
                with pytest.raises(UserError, match=f"there are {count} others"):
                    store[f"{query}x"]

    few, many = (reads_of(monkeypatch, use, count) for count in (20, 80))
    assert few
    assert many <= 5 * few


# --- memory ---


def peak(read):
    """Bytes that were held at once while something was read, by all of numpy and Python."""
    tracemalloc.start()
    try:
        read()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.e2e
def test_reading_a_video_takes_a_small_multiple_of_its_size(tmp_path):
    values = np.random.default_rng(0).normal(size=(2000, 512)).astype(np.float32)
    with h5py.File(tmp_path / "plain.h5", "w") as plain, h5py.File(tmp_path / "packed.h5", "w") as packed:
        for video in ("v", "w"):
            plain[video] = values
            packed.create_dataset(video, data=values, compression="gzip", compression_opts=1)
    for name, save in (("npy", np.save), ("npz", np.savez), ("small", np.savez_compressed)):
        (tmp_path / name).mkdir()
        for video in ("v", "w"):
            save(tmp_path / name / video, values)
    for name in ("plain.h5", "packed.h5", "npy", "npz", "small"):
        store = FeatureStore(tmp_path / name)
        assert store.videos() == ["v", "w"]
        assert peak(lambda store=store: store["v"]) < 2.5 * values.nbytes
        assert peak(lambda store=store: check_features(store, store.videos())) < 3.5 * values.nbytes
        assert peak(lambda store=store: store.length("w")) < values.nbytes / 8


def test_reading_regions_takes_a_small_multiple_of_their_size(tmp_path):
    features = np.random.default_rng(0).normal(size=(30, 36, 512)).astype(np.float32)
    boxes = np.full((30, 36, 4), 0.5, np.float32)
    np.savez(tmp_path / "v.npz", features=features, boxes=boxes, conf=boxes[..., 0], more=features)
    folder = RegionFolder(tmp_path)
    assert peak(lambda: folder["v"]) < 4.5 * features.nbytes
    assert peak(lambda: folder.length("v")) < features.nbytes / 8
