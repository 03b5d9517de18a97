"""Npy files and npz archives: features, query features, regions, predictions; in folders, single and in an LMDB."""

from __future__ import annotations

import functools
import io
import json
import pickle
import random
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from fuzzing.case import Call, Case
from fuzzing.damage import damaged_bytes, exchanged, flipped, json_text
from fuzzing.hdf5 import MANIFEST, SECRET, WIDTH
from fuzzing.texts import ANNOTATIONS, QUERIES, archive, lines

ROWS = 6
MAGIC = b"\x93NUMPY"
DESCRIPTIONS = (
    *(
        "<f4",
        ">f8",
        "<f2",
        "|i1",
        "|u1",
        "<i8",
        "<c8",
        "|b1",
        "|O",
        "|S4",
        "<U4",
        "|V8",
        "<M8[s]",
        "<m8[ns]",
        "<f16",
    ),
    *(
        "",
        "f",
        "<f3",
        "xyz",
        "4f",
        "<f4,<f4",
        "<U1000000000",
        "|S0",
        "|V0",
        "<U0",
        None,
        5,
        True,
        [],
        {},
        ("<f4",),
    ),
    *(
        [("a", "<f4"), ("b", "|O")],
        [("a", "<f4", (3,))],
        [("a", "<f4", (1 << 40,))],
        [("a", "<f4"), ("a", "<f4")],
    ),
    *(("<f4", (2,)), [("", "<f4")], [("a", [("b", "<f4")])]),
)
SIZES = (
    *(
        "()",
        "(6,)",
        "(6, 4)",
        "(4, 6)",
        "(6, 4, 1)",
        "(0, 4)",
        "(6, 0)",
        "(True, 4)",
        "(-1, 4)",
        "(6.0, 4)",
        "None",
    ),
    *(
        "6",
        "'x'",
        "[6, 4]",
        "(6, None)",
        "(1099511627776, 4)",
        "(2**62, 2**62)",
        "(-6, -4)",
        "(9999999999999999999999, 4)",
    ),
    *(
        "(6, 4" + ", 1" * 70 + ")",
        "((6,), 4)",
        "(6, 4",
        "(" * 3000,
        "()" * 50,
        "(1 << 3, 4)",
        "(67108864, 4)",
        "(1j, 4)",
    ),
)
MEMBERS = (
    "features",
    "token_features",
    "cls_features",
    "image_embeddings",
    "x",
    "boxes",
    "allow_pickle",
    "moments",
)
NAMES = (
    *(
        "../x.npy",
        "/x.npy",
        "",
        ".npy",
        "a/b.npy",
        "x.npy/",
        "features",
        "é.npy",
        "\x1b[2J.npy",
        "x" * 60_000 + ".npy",
    ),
    *("features.NPY", "C:\\x.npy", "manifest.json", "a\nb.npy", "features.npy.npy"),
)
FILES = (
    "v.npy",
    "v.npz",
    "w.npz",
    "\x1b[1mv.npz",
    "..npz",
    ".npz",
    "é.npy",
    "v.npz.npy",
    "a b.npz",
    "%s.npz",
    "x\n.npy",
)
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)


def header(rng: random.Random) -> bytes:
    """The start of an npy file, of any version, that promises anything."""
    fields = {
        "descr": repr(rng.choice(DESCRIPTIONS)) if rng.random() < 0.6 else "'<f4'",
        "fortran_order": rng.choice(("False", "False", "True", "0", "None", "'x'")),
        "shape": rng.choice(SIZES) if rng.random() < 0.7 else f"({ROWS}, {WIDTH})",
    }
    if rng.random() < 0.1:
        fields[rng.choice(("extra", "shape2", "\x1b"))] = rng.choice(("1", "[" * 200 + "]" * 200))
    if rng.random() < 0.1:
        del fields[rng.choice(list(fields))]
    text = "{" + ", ".join(f"{name!r}: {value}" for name, value in fields.items()) + ", }"
    if rng.random() < 0.1:
        text = rng.choice(
            (
                "",
                "5",
                "[]",
                "{" * 2000,
                text * 2,
                "(" * 100_000,
                "-" * 50_000 + "1",
                text + " " * 70_000,
                "\xff",
            )
        )
    raw = text.encode("latin-1", "replace") + b"\n"
    version = rng.choice(((1, 0), (1, 0), (2, 0), (3, 0), (0, 0), (1, 1), (9, 9)))
    length = rng.choice((len(raw), len(raw), len(raw), 0, 10, len(raw) + 50, 65_535, (1 << 32) - 1))
    size = struct.pack("<I", length) if version >= (2, 0) else struct.pack("<H", min(length, 65_535))
    return MAGIC + bytes(version) + size + raw


def plain(array: np.ndarray, **settings: Any) -> bytes:
    sink = io.BytesIO()
    np.lib.format.write_array(sink, array, **settings)
    return sink.getvalue()


def values(rng: random.Random, shape: tuple[int, ...] = (ROWS, WIDTH)) -> np.ndarray:
    """An array that is often right, and else of another type, shape or content."""
    array = (np.arange(int(np.prod(shape))) % 7 / 7).reshape(shape).astype("f4")
    kind = rng.random()
    if kind < 0.4:
        return array
    if kind < 0.6:
        return array.astype(
            rng.choice(("f2", "f8", "i1", "u1", "i8", "c8", "?", "S3", "U2", "M8[s]", "m8[s]", ">f4"))
        )
    if kind < 0.8:
        with np.errstate(all="ignore"):
            return array * np.float32(rng.choice((np.nan, np.inf, 3e38, -1, 0)))
    other = rng.choice(
        ((), (0,), (3,), (0, WIDTH), (ROWS, 0), (2, ROWS, WIDTH), (1,) * 30, (1, WIDTH), (ROWS, 1))
    )
    return np.zeros(other, "f4")


def npy(rng: random.Random) -> bytes:
    """The bytes of an npy file."""
    kind = rng.random()
    if kind < 0.45:
        return header(rng) + bytes(rng.choice((0, ROWS * WIDTH * 4, ROWS * WIDTH * 4, 7, 5000)))
    content = plain(values(rng))
    if kind < 0.6:
        return damaged_bytes(rng, content)
    if kind < 0.7:
        return flipped(rng, content, 0, 90)
    if kind < 0.75:
        return content[: rng.randrange(len(content))]
    if kind < 0.8:
        pickled = plain(np.array([{"a": 1}], object), allow_pickle=True)
        return rng.choice((pickled, pickle.dumps([1.0]), b"", b"\0" * 200, archive(x=values(rng))))
    return content


@functools.lru_cache(1)
def zipped_zeros() -> bytes:
    """A gigabyte of zeros in an archive of a megabyte, as the member features.npy of 2^26 rows."""
    text = f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({1 << 26}, {WIDTH}), }}\n".encode()
    sink = io.BytesIO()
    with (
        zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as file,
        file.open("features.npy", "w", force_zip64=True) as out,
    ):
        out.write(MAGIC + b"\1\0" + struct.pack("<H", len(text)) + text)
        block = bytes(1 << 20)
        for _ in range(1024):
            out.write(block)
    return sink.getvalue()


def zipped(rng: random.Random, members: dict[str, bytes]) -> bytes:
    """An archive of some members, and often of others."""
    sink = io.BytesIO()
    method = rng.choice(METHODS) if rng.random() < 0.3 else zipfile.ZIP_STORED
    members = dict(members)
    if rng.random() < 0.25:
        members[rng.choice(NAMES)] = npy(rng)
    if members and rng.random() < 0.35:
        members[rng.choice(list(members))] = npy(rng)
    if members and rng.random() < 0.08:
        del members[rng.choice(list(members))]
    with zipfile.ZipFile(sink, "w", method) as file:
        for name, content in members.items():
            file.writestr(zipfile.ZipInfo(name or "x"), content, method)
        if rng.random() < 0.05 and members:
            import warnings

            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                file.writestr(next(iter(members)) or "x", npy(rng))
        if rng.random() < 0.05:
            file.comment = bytes(rng.randrange(256) for _ in range(rng.choice((3, 300))))
    return sink.getvalue()


def broken(rng: random.Random, content: bytes) -> bytes:
    """An archive whose structure was changed: fields of its local and central headers, its end, its bytes."""
    data = bytearray(content)
    kind = rng.random()
    centre, local = data.rfind(b"PK\x01\x02"), data.find(b"PK\x03\x04")
    end = data.rfind(b"PK\x05\x06")
    if kind < 0.12:
        data[local + 6] |= 1
        data[centre + 8] |= 1  # encrypted
    elif kind < 0.24:
        method = rng.choice((1, 6, 8, 9, 12, 14, 93, 97, 99, 255))
        for place in rng.choice(((local + 8, centre + 10), (centre + 10,), (local + 8,))):
            data[place] = method
    elif kind < 0.5:
        field = rng.choice((4, 6, 8, 10, 16, 20, 24, 28, 30, 32, 34, 38, 42))  # of the central header
        width = rng.choice((1, 2, 4))
        data[centre + field : centre + field + width] = rng.choice((b"\0", b"\xff", b"\x7f", b"\x10")) * width
    elif kind < 0.6:
        field = rng.choice((4, 6, 8, 10, 12, 16, 20))  # of the end
        data[end + field : end + field + 2] = rng.choice((b"\0\0", b"\xff\xff", b"\1\0"))
    elif kind < 0.7:
        data[:0] = rng.choice((b"x" * 50, b"PK\x03\x04", bytes(data)))
    elif kind < 0.85:
        data = bytearray(damaged_bytes(rng, bytes(data)))
    else:
        data = bytearray(flipped(rng, bytes(data)))
    return bytes(data)


def npz(rng: random.Random, members: dict[str, bytes]) -> bytes:
    """The bytes of an archive."""
    kind = rng.random()
    if kind < 0.01:
        return zipped_zeros()
    content = zipped(rng, members)
    return broken(rng, content) if kind < 0.5 else content


def features_of_video(rng: random.Random) -> dict[str, bytes]:
    name = rng.choice(("features", "features", "x", rng.choice(MEMBERS)))
    return {f"{name}.npy": plain(values(rng) if rng.random() < 0.5 else np.ones((ROWS, WIDTH), "f4"))}


def vectors_of_query(rng: random.Random, before: str = "") -> dict[str, bytes]:
    sentence = rng.choice(("cls_features", "eot_features"))
    return {
        f"{before}token_features.npy": plain(values(rng, (3, WIDTH))),
        f"{before}{sentence}.npy": plain(values(rng, rng.choice(((WIDTH,), (1, WIDTH))))),
    }


def regions_of_video(rng: random.Random, per_frame: bool) -> dict[str, bytes]:
    lead = () if per_frame else (ROWS,)
    boxes = np.tile(np.array([0.1, 0.1, 0.4, 0.4], "f4"), (*lead, 2, 1))
    parts = {"features": values(rng, (*lead, 2, WIDTH)), "boxes": boxes, "conf": values(rng, (*lead, 2))}
    if rng.random() < 0.3:
        parts[rng.choice(("num_boxes", "image_w", "width", "image_h"))] = values(
            rng, rng.choice(((), (1,), (ROWS,)))
        )
    return {f"{name}.npy": plain(part) for name, part in parts.items()}


def predictions(rng: random.Random) -> dict[str, bytes]:
    count = len(QUERIES)
    windows = rng.choice(("moments", "pred", "pred_cs", "pred_e4"))
    parts = {windows: values(rng, (count, 2, 2)), rng.choice(("scores", "score_e4")): values(rng, (count, 2))}
    if rng.random() < 0.6:
        ids = np.array([name for name, _, _ in QUERIES])
        odd = (
            ids.astype("S"),
            ids[:2],
            ids.reshape(1, -1),
            np.arange(3),
            np.array([1.5, 2, 3]),
            np.array(["a_0"] * 3),
        )
        parts["ids"] = ids if rng.random() < 0.6 else rng.choice(odd)
    if rng.random() < 0.4:
        parts[windows] = np.tile(np.array([0.0, 5.0]), (count, 2, 1))
    return {f"{name}.npy": plain(np.asarray(part)) for name, part in parts.items()}


def manifest_beside(rng: random.Random, folder: Path) -> None:
    if rng.random() < 0.3:
        text = json_text(rng, exchanged(rng, json.loads(json.dumps(MANIFEST))))
        (folder / "manifest.json").write_bytes(text.encode("utf-8", "surrogatepass"))


def lmdb_file(rng: random.Random, folder: Path) -> Path:
    """An LMDB of archives, damaged inside or as a whole."""
    import lmdb

    place = folder / "store"
    with lmdb.open(str(place), map_size=1 << 20) as environment, environment.begin(write=True) as transaction:
        for name in (b"v", b"v_0", b"w", *([b"\xff\xfe"] if rng.random() < 0.1 else [])):
            members = vectors_of_query(rng) if name == b"v_0" else features_of_video(rng)
            transaction.put(name, npz(rng, members)[:100_000])
    (place / "lock.mdb").unlink()
    data = place / "data.mdb"
    content = data.read_bytes()
    kind = rng.random()
    if kind < 0.2:
        data.write_bytes(content[: rng.randrange(len(content))])
    elif kind < 0.35:
        data.write_bytes(flipped(rng, content, 0, 200))
    manifest_beside(rng, place)
    return place


def make(rng: random.Random, folder: Path, samples: Path) -> Case:
    """Damaged arrays in one of their places, and the commands that read them."""
    annotations = [
        {"query_id": f"{video}_0", "video_id": video, "duration": 30.0, "query": "q w", "windows": [[0, 4]]}
        for video in ("v", "w")
    ]
    (folder / "a.jsonl").write_bytes(lines(*annotations))
    place = folder / "arrays"
    kind = rng.choice(
        ("features", "features", "features", "query", "query folder", "regions", "predictions", "lmdb")
    )
    split: list[object] = ["--annotations", folder / "a.jsonl"] if rng.random() < 0.6 else []
    if kind == "predictions":
        path = folder / "p.npz"
        path.write_bytes(npz(rng, predictions(rng)))
        (folder / "whole.jsonl").write_bytes(ANNOTATIONS["canonical"])
        arguments = [
            path,
            "--annotations",
            folder / "whole.jsonl",
            "--protocol",
            rng.choice(("strict", "ego4d-nlq")),
        ]
        return Case([Call("vmr-score", [*arguments, "--json"], warns=True)])
    if kind == "lmdb":
        option = rng.choice(("--features", "--query-features"))
        return Case(_readers(rng, [option, lmdb_file(rng, folder)], split, folder), SECRET)
    if kind == "query":
        path = folder / "q.npz"
        members = vectors_of_query(rng, "v_0/") | vectors_of_query(rng, "w_0/")
        path.write_bytes(npz(rng, members))
        return Case(_readers(rng, ["--query-features", path], split, folder), SECRET)
    place.mkdir()
    manifest_beside(rng, place)
    option = {"features": "--features", "query folder": "--query-features", "regions": "--objects"}[kind]
    if kind == "regions":
        per_frame = rng.random() < 0.5
        for video in ("v", "w"):
            base = place / video if per_frame else place
            base.mkdir(exist_ok=True)
            names = ["0.npz", "1.npz"] if per_frame else [f"{video}.npz"]
            for name in names:
                (base / name).write_bytes(npz(rng, regions_of_video(rng, per_frame)))
        arguments = ["convert", option, place, *split, "--out", folder / "out.h5"]
        arguments += [*rng.choice((["--dim", WIDTH], [])), *rng.choice((["--missing", "fill"], []))]
        return Case([Call("leorn-objects", [*arguments, "--data-root", folder])], SECRET)
    for video in ("v", "w") if kind == "features" else ("v_0", "w_0"):
        members = features_of_video(rng) if kind == "features" else vectors_of_query(rng)
        if kind == "features" and rng.random() < 0.5:
            (place / f"{video}.npy").write_bytes(npy(rng))
        else:
            (place / f"{video}.npz").write_bytes(npz(rng, members))
    if rng.random() < 0.2:
        (place / rng.choice(FILES)).write_bytes(npy(rng))
    if rng.random() < 0.05:
        (place / "x.npy").symlink_to(rng.choice(("../../home/key", "x.npy", "none", "/dev/zero")))
    return Case(_readers(rng, [option, place], split, folder), SECRET)


def _readers(rng: random.Random, source: list[object], split: list[object], folder: Path) -> list[Call]:
    verbs = rng.sample(["check", "convert"] + (["info"] if source[0] == "--features" else []), 2)
    more: dict[str, list[object]] = {"convert": ["--out", folder / "out.h5"], "check": [], "info": []}
    key = ["--key", rng.choice(MEMBERS)] if source[0] == "--features" and rng.random() < 0.15 else []
    program = "vmr-data" if source[0] == "--features" else "rgnet-data"
    return [
        Call(program, [verb, *source, *split, *key, *more[verb], "--data-root", folder]) for verb in verbs
    ]
