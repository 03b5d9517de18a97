"""HDF5 files of features, query features and objects: damaged bytes, and structures that no writer of ours makes."""

from __future__ import annotations

import contextlib
import functools
import io
import json
import random
import zlib
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from fuzzing.case import Call, Case, below
from fuzzing.damage import damaged_bytes, exchanged, flipped, json_text
from fuzzing.texts import lines

SECRET = b"SECRET KEY OF WHOEVER READS THE FILE, 64 BYTES LONG, NEVER SHOWN"
VIDEOS = ("v", "w", "x")
WIDTH, ROWS = 4, 6
MANIFEST = {
    "extractor": "x",
    "weights_hash": None,
    "fps": 25.0,
    "stride_s": 5.0,
    "window_s": 2.0,
    "dim": WIDTH,
    "normalised": False,
    "dtype": "float32",
    "source": "s",
    "creator": "c",
}
OBJECTS = {
    "detector": "d",
    "box_order": "x1 y1 x2 y2",
    "box_units": "normalised",
    "frames": ROWS,
    "objects": 2,
    "dim": WIDTH,
    "dtype": "float32",
}
ANNOTATIONS = [
    {"query_id": f"{video}_0", "video_id": video, "duration": 30.0, "query": "q w", "windows": [[0, 4]]}
    for video in VIDEOS
]
SIGNATURES = (
    b"OHDR",
    b"TREE",
    b"SNOD",
    b"HEAP",
    b"FRHP",
    b"BTHD",
    b"BTLF",
    b"OCHK",
    b"GCOL",
    b"FHDB",
    b"\x89HDF",
)
LEAF = h5py.string_dtype()
TYPES = (
    *(
        "f2",
        "f4",
        "f8",
        ">f4",
        ">f8",
        "i1",
        "u1",
        "i2",
        "u2",
        "i4",
        "u4",
        "i8",
        "u8",
        ">i8",
        "c8",
        "c16",
        "?",
    ),
    *(
        "S3",
        "S0",
        "V5",
        "longdouble",
        "clongdouble",
        "text",
        "ragged",
        "pairs",
        "rows",
        "choice",
        "pointer",
        "part",
    ),
    *("bits", "precise", "time"),
)
FILTERS = ("gzip", "lzf", "shuffle", "fletcher32", "scaleoffset", "nbit", "szip", "unknown", "plugin")
SHAPES: tuple[Any, ...] = (
    *(None, (), (0,), (3,), (0, WIDTH), (ROWS, 0), (ROWS, WIDTH), (ROWS, WIDTH + 1), (1, WIDTH), (ROWS, 1)),
    *(
        (2, ROWS, WIDTH),
        (ROWS, 2, WIDTH),
        (ROWS, 2, WIDTH + 5),
        (1,) * 32,
        (ROWS, WIDTH, 0),
        (100_000, WIDTH),
    ),
    *(
        (1 << 40, WIDTH),
        (ROWS, 1 << 40),
        (1 << 31, 1 << 31),
        (1 << 62, 1),
        (1 << 20, 1 << 10),
        (1 << 27, WIDTH),
    ),
)
NAMES = (
    *(
        b"v",
        b"w",
        b"\xff\xfe",
        b"\xed\xa0\x80",
        b"\x1b[2Jv",
        b"..",
        b"a b",
        "é\u202e".encode(),
        b"x" * 5000,
        b"a\nb",
    ),
    *(b"manifest", b"token_features", b"cls_features", b"features", b"feats", b"clip", b"v\x07", b"%s", b"0"),
)


def datatype(rng: random.Random, name: str) -> Any:
    """A numpy or HDF5 type by the names of `TYPES`."""
    made = {
        "text": h5py.string_dtype,
        "ragged": lambda: h5py.vlen_dtype(rng.choice(("f4", "i8", "u1"))),
        "pairs": lambda: np.dtype([("a", "f4"), ("b", rng.choice(("i4", "S3", "f8")))]),
        "rows": lambda: np.dtype(("f4", (rng.choice((1, WIDTH, 70_000)),))),
        "choice": lambda: h5py.enum_dtype({"a": 0, "b": 1}, basetype="i4"),
        "pointer": lambda: h5py.ref_dtype,
        "part": lambda: h5py.regionref_dtype,
    }
    if name in made:
        return made[name]()
    if name == "bits":
        return h5py.h5t.STD_B16LE
    if name == "time":
        return h5py.h5t.UNIX_D32LE
    if name == "precise":
        kind = rng.choice((h5py.h5t.STD_I32LE, h5py.h5t.IEEE_F32LE)).copy()
        kind.set_precision(rng.choice((3, 17, 30)) if kind.get_class() == h5py.h5t.INTEGER else 32)
        if kind.get_class() == h5py.h5t.FLOAT:
            kind.set_fields(31, rng.choice((20, 23)), rng.choice((5, 8)), 0, rng.choice((10, 20)))
        return kind
    return np.dtype(name)


def bare_dataset(rng: random.Random, group: h5py.Group, name: bytes) -> None:
    """A data set by HDF5's own calls: any type, shape, filter and fill value; values are written where it is small."""
    kind = datatype(rng, rng.choice(TYPES if rng.random() < 0.6 else ("f4", "f2", "f8", "u1")))
    if not isinstance(kind, h5py.h5t.TypeID):
        kind = h5py.h5t.py_create(kind, logical=True)
    shape = rng.choice(SHAPES if rng.random() < 0.6 else ((ROWS, WIDTH),))
    space = _space(rng, shape)
    settings = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    if shape and (rng.random() < 0.5 or space.get_simple_extent_dims(True) != shape):
        settings.set_chunk(tuple(max(1, min(size, rng.choice((1, 3, 64, 1024)))) for size in shape))
        for _ in range(rng.choice((0, 1, 1, 2))):
            add_filter(rng, settings, rng.choice(FILTERS))
    elif rng.random() < 0.2:
        settings.set_layout(h5py.h5d.COMPACT)
    if rng.random() < 0.2:
        settings.set_fill_value(np.array(rng.choice((float("nan"), float("inf"), 1.0, 1e300)), "f8"))
    if rng.random() < 0.2:
        settings.set_alloc_time(rng.choice((h5py.h5d.ALLOC_TIME_LATE, h5py.h5d.ALLOC_TIME_INCR)))
    fill(rng, h5py.Dataset(h5py.h5d.create(group.id, name, kind, space, settings)))


def fill(rng: random.Random, made: h5py.Dataset) -> None:
    """Writes numbers where they are few, and sometimes a chunk of bytes that are none."""
    shape = made.shape
    few = shape is not None and np.prod(shape, dtype=float) < 1e5
    if few and rng.random() < 0.8 and made.dtype.kind in "fiuc":
        values = np.arange(int(np.prod(shape)), dtype="f8") % 100 / 100
        if rng.random() < 0.15 and values.size:
            values[rng.randrange(values.size)] = rng.choice((np.nan, np.inf, 1e300, -1))
        with np.errstate(all="ignore"):
            made[...] = values.reshape(shape).astype(made.dtype)
    if (
        made.chunks and rng.random() < 0.3 and _count(shape, made.chunks) < 1e5
    ):  # its index grows with the chunks
        content = rng.choice((b"", b"\0" * 7, zipped_zeros(), b"\xff" * 100, zlib.compress(b"\1" * 50)))
        made.id.write_direct_chunk((0,) * len(shape), content, rng.choice((0, 0, 1, 3)))


def elsewhere(rng: random.Random, group: h5py.Group, name: bytes) -> None:
    """A data set whose numbers lie in another file, where nothing is written now."""
    kind, shape = rng.choice(
        (("u1", (16, WIDTH)), ("u1", (16, WIDTH)), ("f4", (4, WIDTH)), ("f4", (ROWS, WIDTH)))
    )
    settings = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    settings.set_external(*_external(rng))
    settings.set_alloc_time(h5py.h5d.ALLOC_TIME_LATE)
    settings.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    h5py.h5d.create(
        group.id, name, h5py.h5t.py_create(np.dtype(kind)), h5py.h5s.create_simple(shape), settings
    )


def _count(shape: Any, chunks: tuple[int, ...]) -> float:
    return float(np.prod([-(-size // chunk) for size, chunk in zip(shape, chunks, strict=True)], dtype=float))


def _space(rng: random.Random, shape: Any) -> Any:
    if shape is None:
        return h5py.h5s.create(h5py.h5s.NULL)
    if not shape:
        return h5py.h5s.create(h5py.h5s.SCALAR)
    most = shape if rng.random() < 0.8 else tuple(h5py.h5s.UNLIMITED for _ in shape)
    return h5py.h5s.create_simple(shape, most)


@functools.lru_cache(1)
def zipped_zeros() -> bytes:
    """100 MB of zeros, packed to 100 KB."""
    return zlib.compress(bytes(100 << 20), 9)


def add_filter(rng: random.Random, settings: Any, name: str) -> None:
    simple = {
        "gzip": lambda: settings.set_deflate(rng.randrange(10)),
        "shuffle": settings.set_shuffle,
        "fletcher32": settings.set_fletcher32,
        "lzf": lambda: settings.set_filter(32000, h5py.h5z.FLAG_OPTIONAL),
        "scaleoffset": lambda: settings.set_scaleoffset(h5py.h5z.SO_INT, rng.choice((0, 3))),
        "nbit": lambda: settings.set_filter(h5py.h5z.FILTER_NBIT, h5py.h5z.FLAG_OPTIONAL),
        "szip": lambda: settings.set_filter(h5py.h5z.FILTER_SZIP, h5py.h5z.FLAG_OPTIONAL, (4, 8)),
        "unknown": lambda: settings.set_filter(rng.choice((301, 30_000)), h5py.h5z.FLAG_OPTIONAL, (1, 2)),
        "plugin": lambda: settings.set_filter(rng.choice((32_001, 32_015)), h5py.h5z.FLAG_OPTIONAL),
    }
    simple[name]()


def _external(rng: random.Random) -> tuple[bytes, int, int]:
    name = rng.choice(
        (b"../home/key", b"../home/key", b"/dev/zero", b"a.h5", b"none.bin", b"", b"%s", b"/dev/stdin")
    )
    return name, rng.choice((0, 0, 8)), rng.choice((64, 96, h5py.h5f.UNLIMITED))


def link(rng: random.Random, group: h5py.Group, name: str) -> None:
    """An entry that is no entry: soft and external links, virtual data sets, committed types, references."""
    kind = rng.choice(("soft", "external", "virtual", "type", "group", "hard", "deep"))
    if kind == "soft":
        group[name] = h5py.SoftLink(
            rng.choice((name, "/", "/v", "none", ".", "/" + name, "w/..", "//w//", "x" * 70_000))
        )
    elif kind == "external":
        file = rng.choice(("other.h5", "../home/key", "a.h5", "none.h5", "/dev/zero", "", "../case/a.h5"))
        group[name] = h5py.ExternalLink(file, rng.choice(("/x", "/", "/v", "none", name)))
    elif kind == "virtual":
        layout = h5py.VirtualLayout(
            shape=(ROWS, WIDTH), dtype="f4", maxshape=rng.choice((None, (None, WIDTH)))
        )
        file = rng.choice(("other.h5", ".", "none.h5", "a.h5", "%b.h5", "../home/key"))
        source = h5py.VirtualSource(file, rng.choice(("x", name, "w")), shape=(ROWS, WIDTH))
        layout[: rng.choice((ROWS, 2))] = source[: rng.choice((ROWS, 2))] if rng.random() < 0.5 else source
        group.create_virtual_dataset(name, layout, fillvalue=rng.choice((0.0, 1.0, np.nan)))
    elif kind == "type":
        group[name] = np.dtype("f4")
    elif kind == "group":
        group.require_group(name).require_group(rng.choice(("v", "token_features", "features")))
    elif kind == "hard":
        group.require_group(name)[rng.choice(("loop", "token_features"))] = group
    else:
        for _ in range(rng.choice((3, 200))):
            group = group.require_group(name)


def attribute(rng: random.Random, node: Any) -> None:
    """A manifest of any type, or another attribute."""
    name = "manifest" if rng.random() < 0.9 else rng.choice(("DIMENSION_LIST", "CLASS", "x", ""))
    text = json_text(rng, exchanged(rng, json.loads(json.dumps(rng.choice((MANIFEST, OBJECTS))))))
    raw = text.encode("utf-8", "surrogatepass")
    values: tuple[Any, ...] = (
        *(
            5,
            1.5,
            True,
            np.void(b"{}"),
            h5py.Empty("f4"),
            h5py.Empty(LEAF),
            [1, 2],
            b"\xff{}",
            np.bytes_(b"{}"),
        ),
        *(np.array(["{}"], dtype=LEAF), np.array(["{}", "{}"], dtype=LEAF), np.zeros((2, 2), "S2"), node.ref),
        *(
            np.array([(1, 2.0)], "i4,f4"),
            "{}" * 20_000,
            np.array(b"a\0b"),
            np.array([], "f4"),
            np.complex64(1),
        ),
        *([raw[:60_000]] * 12 if raw else []),
        *([text[:60_000]] * 12 if "\0" not in text and "\ud800" not in text else []),
    )
    if name in node.attrs:
        del node.attrs[name]
    node.attrs[name] = rng.choice(values)


def valid(rng: random.Random, kind: str, file: h5py.File) -> None:
    """What a correct file of some kind holds."""
    numbers = np.random.default_rng(0)
    dtype = rng.choice(("f4", "f4", "f2", "f8"))
    packing: dict[str, Any] = rng.choice(({}, {}, {"chunks": True, "compression": "gzip"}, {"chunks": True}))
    for video in VIDEOS:
        if kind == "features":
            file.create_dataset(video, data=numbers.random((ROWS, WIDTH)).astype(dtype), **packing)
        elif kind == "groups":
            file.create_dataset(f"{video}/clip", data=numbers.random((ROWS, WIDTH)).astype(dtype), **packing)
        elif kind == "queries":
            file.create_dataset(f"{video}_0/token_features", data=numbers.random((3, WIDTH)).astype(dtype))
            file.create_dataset(f"{video}_0/cls_features", data=numbers.random(WIDTH).astype(dtype))
        elif kind == "packed":
            file.create_dataset(video, data=numbers.random((ROWS, 2, WIDTH + 5)).astype(dtype), **packing)
        else:
            names = ("features", "confidence", "boxes")
            kinds = ("feats", "confidence", "bbox") if kind == "by kind" else names
            boxes = np.sort(numbers.random((ROWS, 2, 2, 2)), axis=2).reshape(ROWS, 2, 4)
            parts = (numbers.random((ROWS, 2, WIDTH)), numbers.random((ROWS, 2)), boxes)
            for name, part in zip(kinds, parts, strict=True):
                file.create_dataset(
                    f"{name}/{video}" if kind == "by kind" else f"{video}/{name}", data=part.astype("f4")
                )
    if rng.random() < 0.8:
        about = MANIFEST if kind in ("features", "groups", "queries") else OBJECTS
        file.attrs["manifest"] = json.dumps(about)


def content_of(rng: random.Random, kind: str) -> bytes:
    """A valid file's bytes, of the old or the new format, perhaps with a user block."""
    sink = io.BytesIO()
    with h5py.File(sink, "w", libver=rng.choice(("earliest", "earliest", "latest"))) as file:
        valid(rng, kind, file)
    return sink.getvalue()


def damaged(rng: random.Random, content: bytes) -> bytes:
    """Bytes changed anywhere, or where the structure is described, where every change counts."""
    kind = rng.random()
    if kind < 0.2:
        return damaged_bytes(rng, content)
    if kind < 0.35:
        return flipped(rng, content)
    if kind < 0.45:
        return content[: rng.randrange(len(content))]
    if kind < 0.5:
        return rng.choice((b"\0" * 512, b"x" * 512, content[:512])) + content
    marks = [place for mark in SIGNATURES for place in _places(content, mark)]
    where = rng.choice(marks) if marks and kind < 0.85 else rng.choice((0, 48, 96, 800))
    return flipped(rng, content, where + rng.choice((0, 4, 8)), where + rng.choice((16, 64, 256)))


def _places(content: bytes, mark: bytes) -> list[int]:
    found, place = [], content.find(mark)
    while place >= 0:
        found.append(place)
        place = content.find(mark, place + 1)
    return found


def structured(rng: random.Random, kind: str, path: Path) -> None:
    """A valid file into which entries were put, or in place of whose entries others were put."""
    path.write_bytes(content_of(rng, kind))
    with h5py.File(path.with_name("other.h5"), "w") as other:
        other["x"] = np.frombuffer((SECRET * 2)[: ROWS * WIDTH * 4], "f4").reshape(ROWS, WIDTH)
    with h5py.File(path, "a") as file:
        for _ in range(rng.choice((1, 1, 2, 3))):
            with contextlib.suppress(ValueError, TypeError, RuntimeError, OSError, KeyError):
                _put(rng, file)  # not everything can be made


def _put(rng: random.Random, file: h5py.File) -> None:
    """An odd entry or attribute in the file or one of its groups."""
    groups = [node for node in file.values() if isinstance(node, h5py.Group)]
    group = rng.choice(groups) if groups and rng.random() < 0.6 else file
    what = rng.random()
    if what < 0.25:
        attribute(rng, file if rng.random() < 0.9 else group)
        return
    known = [key.encode() for key in group if isinstance(key, str)]
    name = rng.choice(known if known and rng.random() < 0.6 else NAMES)
    with contextlib.suppress(KeyError, ValueError):
        group.id.unlink(name)
    if what < 0.7:
        bare_dataset(rng, group, name)
    elif what < 0.78:
        elsewhere(rng, group, name)
    else:
        link(rng, group, name.decode("utf-8", "replace"))


def make(rng: random.Random, folder: Path, samples: Path) -> Case:
    """A damaged HDF5 file and the commands that read it."""
    kind = rng.choice(("features", "features", "groups", "queries", "packed", "by kind", "parts"))
    path = below(folder, "a.h5")
    if rng.random() < 0.45:
        path.write_bytes(damaged(rng, content_of(rng, kind)))
    else:
        structured(rng, kind, path)
    (folder / "a.jsonl").write_bytes(lines(*ANNOTATIONS))
    return Case(readers(rng, kind, path, folder), SECRET)


def readers(rng: random.Random, kind: str, path: Path, folder: Path) -> list[Call]:
    """One or two commands that read features, query features or objects."""
    split: list[object] = ["--annotations", folder / "a.jsonl"] if rng.random() < 0.5 else []
    if kind in ("features", "groups"):
        program = "vmr-data"
        source: list[object] = ["--features", path, *(["--key", "clip"] if kind == "groups" else [])]
    elif kind == "queries":
        program, source = "rgnet-data", ["--query-features", path]
    else:
        program, source = "leorn-objects", ["--objects", path]
    calls = []
    for verb in rng.sample(["check", "convert", "info", "concat"], 2):
        more: list[object] = []
        if (verb, kind) == ("info", "queries"):
            continue
        if verb == "concat":
            if kind not in ("features", "groups"):
                continue
            more = ["--annotations", folder / "a.jsonl", "--out", folder / "long"]
            more += rng.choice(([], ["--stride-s", 5]))
            calls.append(Call("rgnet-data", ["concat", *source, *more, "--data-root", folder]))
            continue
        if verb == "convert":
            more = ["--out", folder / "out.h5", "--dtype", rng.choice(("float16", "float32"))]
            if kind in ("packed", "by kind", "parts") and rng.random() < 0.5:
                more += ["--frames", rng.choice((1, 3, 9)), "--slots", rng.choice((1, 2))]
        if verb == "check" and rng.random() < 0.3 and kind != "queries":
            more = ["--dim", WIDTH]
        given = [] if (verb, program) == ("info", "leorn-objects") else split
        calls.append(Call(program, [verb, *source, *given, *more, "--data-root", folder]))
    return calls
