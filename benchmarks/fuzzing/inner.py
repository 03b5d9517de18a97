"""JSON inside and beside other files: what a command wrote and reads again, with values of the wrong kind.

Checksums are made right again: what is wrong is the value, not the file.
"""

from __future__ import annotations

import hashlib
import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from fuzzing.case import Call, Case
from fuzzing.damage import exchanged, json_text
from fuzzing.hdf5 import MANIFEST, OBJECTS
from fuzzing.samples import trained
from fuzzing.texts import lines
from fuzzing.weights import content_of, joined, parts_of, resume

SENTENCE = "the red circle spins"


def changed(rng: random.Random, value: Any) -> bytes:
    """A JSON value with something wrong, as text."""
    text = json_text(rng, exchanged(rng, value, rng.choice((1, 1, 1, 2))))
    return text.encode("utf-8", "surrogatepass")


def changed_rows(rng: random.Random, content: bytes) -> bytes:
    """JSON lines, one of which has something wrong."""
    rows = content.splitlines()
    number = rng.randrange(len(rows))
    rows[number] = changed(rng, json.loads(rows[number]))
    return b"\n".join(rows) + (b"\n" if rng.random() < 0.8 else b"")


def with_metadata(rng: random.Random, content: bytes) -> bytes:
    """A checkpoint whose JSON has something wrong."""
    header, data = parts_of(content)
    meta = json.loads(header["__metadata__"]["vmr"])
    header["__metadata__"]["vmr"] = changed(rng, meta).decode("utf-8", "replace")
    return joined(header, data)


def checkpoint(rng: random.Random, folder: Path, samples: Path) -> Case:
    package = rng.choice(trained(samples))
    path = folder / "mine.safetensors"
    path.write_bytes(
        with_metadata(rng, content_of(samples / f"runs/{package}/tiny/checkpoints/best.safetensors"))
    )
    data: list[object] = ["--checkpoint", path, "--data-root", samples / "data"]
    if package == "cfmr" and rng.random() < 0.3:
        return Case([Call("cfmr-index", [*data, "--out", folder / "index"])])
    if rng.random() < 0.3:
        return Case([Call(f"{package}-eval", data)])
    return Case([Call(f"{package}-predict", [*data, "--video", "test-0000", "--query", SENTENCE])])


def run_folder(rng: random.Random, folder: Path, samples: Path) -> Case:
    """A run in which training goes on: the JSON of a checkpoint, or a row of the metrics."""
    package = rng.choice(trained(samples))
    run = folder / f"runs/{package}/tiny"
    shutil.copytree(samples / f"runs/{package}/tiny", run)
    kind = rng.choice(("last", "last", "best", "metrics"))
    path = run / "metrics.jsonl" if kind == "metrics" else run / f"checkpoints/{kind}.safetensors"
    content = path.read_bytes()
    path.write_bytes(changed_rows(rng, content) if kind == "metrics" else with_metadata(rng, content))
    case = Case([resume(folder, samples, package)])
    case.put(
        run / rng.choice(("checkpoints/.notes.partial", "checkpoints/mine.bin", "notes.txt", ".lock.mine"))
    )
    return case


def report(rng: random.Random, folder: Path, samples: Path) -> Case:
    package = rng.choice(trained(samples))
    run = folder / "run"
    shutil.copytree(samples / f"runs/{package}/tiny", run, ignore=shutil.ignore_patterns("checkpoints"))
    name = rng.choice(
        ("report.json", "report.json", "metrics.jsonl", "predictions.jsonl", "results.json", "run.json")
    )
    content = (run / name).read_bytes()
    (run / name).write_bytes(
        changed_rows(rng, content) if name.endswith("l") else changed(rng, json.loads(content))
    )
    if rng.random() < 0.2:
        (run / "report.json").unlink()
    return Case(
        [Call("vmr-report", [run, "--out", folder / "page.html", *rng.choice(([], ["--queries", 3]))])]
    )


def index(rng: random.Random, folder: Path, samples: Path) -> Case:
    """An index whose manifest or a table has something wrong, and right checksums."""
    place = folder / "index"
    shutil.copytree(samples / "index", place)
    stated = place / rng.choice(("index.json", "scan/manifest.json", "scan/manifest.json"))
    manifest = json.loads(stated.read_text())
    content = manifest["content"]
    if stated.name == "manifest.json" and rng.random() < 0.5:
        path, table = _a_table(rng, place, content)
        raw = changed(rng, table)
        path.write_bytes(raw)
        for shard in content["shards"]:
            if shard["name"] == path.stem:
                shard["table_sha256"] = hashlib.sha256(raw).hexdigest()
    else:
        content = exchanged(rng, content, rng.choice((1, 1, 2)))
    if rng.random() < 0.1:
        manifest = exchanged(rng, manifest)
    elif isinstance(manifest, dict):
        manifest["content"] = content
        manifest["checksum"] = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    stated.write_text(json.dumps(manifest))
    if rng.random() < 0.05:
        stated.write_bytes(changed(rng, manifest))
    data: list[object] = ["--data-root", samples / "data"]
    (folder / "queries.jsonl").write_bytes(lines({"qid": "1", "query": SENTENCE}))
    calls: tuple[Callable[[], Call], ...] = (
        lambda: Call("cfmr-search", [place, SENTENCE]),
        lambda: Call("cfmr-search", [place, SENTENCE, "--json", "--video", "test-0000"]),
        lambda: Call("cfmr-search", [place, "--queries", folder / "queries.jsonl", "-k", 3]),
        lambda: Call("cfmr-search", [place, "--measure", "test", *data]),
        lambda: Call("cfmr-index", ["--out", place, "--verify"]),
        lambda: Call("cfmr-index", ["--out", place, "--remove", "test-0000"]),
        lambda: Call("cfmr-index", ["--out", place, "--compact"]),
        lambda: Call("cfmr-index", ["--out", place, "--add", *data]),
    )
    case = Case([rng.choice(calls)()])
    case.put(
        place / rng.choice(("notes.txt", "scan/notes.txt", "scan/data.bin", ".notes.partial", "scan/x.json"))
    )
    return case


def _a_table(rng: random.Random, place: Path, content: Any) -> tuple[Path, Any]:
    path = place / "scan" / f"{rng.choice(content['shards'])['name']}.json"
    return path, json.loads(path.read_text())


def queries(rng: random.Random, folder: Path, samples: Path) -> Case:
    """Sentences to search for, with something wrong."""
    path = folder / "queries.jsonl"
    path.write_bytes(
        changed_rows(rng, lines({"qid": "1", "query": SENTENCE}, {"qid": 2, "query": "a blue square"}))
    )
    return Case([Call("cfmr-search", [samples / "index", "--queries", path, *rng.choice(([], ["--json"]))])])


def attribute(rng: random.Random, folder: Path, samples: Path) -> Case:
    """The manifest of an HDF5 file of features or objects."""
    objects = rng.random() < 0.4
    name = "objects.h5" if objects else "shapes/features.h5"
    path = folder / "a.h5"
    shutil.copyfile(samples / "data" / name, path)
    with h5py.File(path, "a") as file:
        text = changed(rng, json.loads(file.attrs["manifest"]))
        file.attrs["manifest"] = rng.choice(
            (np.bytes_(text[:60_000]), text[:60_000].decode("utf-8", "ignore").replace("\0", ""))
        )
    root = ["--data-root", samples / "data"]
    split = ["--annotations", samples / "data/shapes/test.jsonl"]
    if objects:
        verb = rng.choice(
            (["check", *split], ["info"], ["convert", *split, "--out", folder / "out.h5", "--frames", 4])
        )
        return Case([Call("leorn-objects", [*verb, "--objects", path, *root])])
    if rng.random() < 0.3:
        options = ["--checkpoint", samples / "runs/cfmr/tiny", "--out", folder / "index", "--features", path]
        return Case([Call("cfmr-index", [*options, *root])])
    verb = rng.choice(
        (["check"], ["info"], ["convert", "--out", folder / "out.h5"], ["concat", "--out", folder / "long"])
    )
    return Case([Call(_program(verb), [*verb, "--features", path, *split, *root])])


def _program(verb: list[object]) -> str:
    return "rgnet-data" if verb[0] == "concat" else "vmr-data"


def beside(rng: random.Random, folder: Path, samples: Path) -> Case:
    """manifest.json in a folder of arrays."""
    place = folder / "arrays"
    place.mkdir()
    objects = rng.random() < 0.4
    boxes = np.tile(np.array([0.1, 0.1, 0.4, 0.4], "f4"), (3, 2, 1))
    if objects:
        np.savez(place / "v.npz", features=np.ones((3, 2, 4), "f4"), boxes=boxes, conf=np.ones((3, 2), "f4"))
    else:
        np.save(place / "v.npy", np.ones((6, 4), "f4"))
    (place / "manifest.json").write_bytes(changed(rng, dict(OBJECTS if objects else MANIFEST)))
    row = {"query_id": "v_0", "video_id": "v", "duration": 30.0, "query": "q w", "windows": [[0, 4]]}
    (folder / "a.jsonl").write_bytes(lines(row))
    options = ["--objects" if objects else "--features", place, "--annotations", folder / "a.jsonl"]
    verbs = [["convert", "--out", folder / "out.h5"]]
    verbs += [] if objects else [["check"], ["info"], ["concat", "--out", folder / "long"]]
    verb = rng.choice(verbs)
    program = "leorn-objects" if objects else _program(verb)
    return Case([Call(program, [*verb, *options, "--data-root", folder])])


def plan(rng: random.Random, folder: Path, samples: Path) -> Case:
    """What a conversion left when it was killed."""
    source, out = folder / "many.h5", folder / "out.h5"
    with h5py.File(source, "w") as file:
        for number in range(70):
            file[f"v{number:03d}"] = np.full((2, 3), number, "f4")
    parts = folder / ".out.h5.parts"
    parts.mkdir()
    call = Call("vmr-data", ["convert", "--features", source, "--out", out, "--data-root", folder])
    # what the plan of this very conversion says is known only to the program: a plan of the right form
    about = [
        [[str(source), source.stat().st_size, source.stat().st_mtime_ns]],
        [None],
        "0" * 64,
        MANIFEST,
        "float32",
        64,
    ]
    (parts / "plan.json").write_bytes(changed(rng, about))
    (parts / "000000.h5").write_bytes(rng.choice((b"", b"x" * 600, source.read_bytes()[:3000])))
    case = Case([call])
    case.put(parts / rng.choice(("mine.txt", "mine.h5", "000000.h5.bak")))
    return case


def shapes(rng: random.Random, folder: Path, samples: Path) -> Case:
    """The description of a folder of Shapes data, from which a report draws its frames again."""
    place, package = folder / "data/shapes", rng.choice(trained(samples))
    shutil.copytree(samples / "data/shapes", place)
    (place / "meta.json").write_bytes(changed(rng, json.loads((place / "meta.json").read_text())))
    shutil.copytree(samples / f"runs/{package}/tiny", folder / f"runs/{package}/tiny")
    arguments = [
        "--cfg",
        samples / f"cfg/{package}.yaml",
        "--data-root",
        folder / "data",
        "--runs",
        folder / "runs",
    ]
    return Case([Call(f"{package}-train", [*arguments, "--resume"])])


MAKERS = (
    *(checkpoint, checkpoint, run_folder, run_folder, report, report, index, index, index),
    *(queries, attribute, attribute, beside, plan, shapes),
)


def make(rng: random.Random, folder: Path, samples: Path) -> Case:
    """One of these, and the command that reads it."""
    return rng.choice(MAKERS)(rng, folder, samples)
