"""Safetensors and other files of weights: headers, tensors, metadata; checkpoints of ours and weights of others."""

from __future__ import annotations

import functools
import io
import json
import pickle
import random
import struct
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fuzzing.arrays import npz, plain
from fuzzing.case import Call, Case
from fuzzing.damage import damaged_bytes, exchanged, flipped, json_text
from fuzzing.samples import trained

DTYPES = (
    "F32",
    "F16",
    "BF16",
    "F64",
    "I64",
    "I32",
    "U8",
    "BOOL",
    "F8_E4M3",
    "F8_E5M2",
    "F4",
    "C64",
    "X",
    "",
    None,
    3,
)


class Trap:
    """What would start a process if it were ever unpickled."""

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        import os

        return (os.system, ("true",))


def parts_of(content: bytes) -> tuple[dict[str, Any], bytes]:
    """Header and data of a safetensors file."""
    (length,) = struct.unpack("<Q", content[:8])
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def joined(header: Any, data: bytes, length: int | None = None) -> bytes:
    """A safetensors file of a header (text, or what becomes JSON) and data."""
    raw = header if isinstance(header, bytes) else json.dumps(header).encode("utf-8", "surrogatepass")
    return struct.pack("<Q", len(raw) if length is None else length) + raw + data


@functools.lru_cache(8)
def content_of(path: Path) -> bytes:
    return path.read_bytes()


def other_tensor(rng: random.Random, header: dict[str, Any]) -> None:
    """Changes what the header says of one tensor, or which tensors there are."""
    names = [name for name in header if name != "__metadata__"]
    name = rng.choice(names)
    about, kind = header[name], rng.random()
    if kind < 0.2:
        about["dtype"] = rng.choice(DTYPES)
    elif kind < 0.4:
        about["shape"] = rng.choice(
            ([], [0], [1 << 62, 2], [-1], about["shape"][::-1], [about["shape"]], None, [1.5])
        )
    elif kind < 0.55:
        begin, end = about["data_offsets"]
        about["data_offsets"] = rng.choice(
            ([end, begin], [begin, 1 << 63], [0, 4], [begin], [begin, end + 4], None, [-4, 0])
        )
    elif kind < 0.7:
        header[rng.choice(("x", "", "model.\x1b[2J", "model." + "x" * 5000, "optim.0"))] = dict(about)
    elif kind < 0.8:
        del header[name]
    elif kind < 0.9:
        header[rng.choice(names)] = header.pop(name)
    else:
        exchanged(rng, about)


def other_metadata(rng: random.Random, header: dict[str, Any]) -> None:
    """Changes the texts beside the tensors."""
    kind = rng.random()
    if kind < 0.25:
        header["__metadata__"] = rng.choice(
            (None, 5, [], {}, {"vmr": 5}, {"vmr": None}, {"x": "y"}, "x", {"vmr": ""})
        )
    elif kind < 0.4:
        header["__metadata__"][rng.choice(("vmr2", "", "\x1b[31m", "a" * 3000))] = rng.choice(
            ("x", 5, None, "\ud800")
        )
    else:
        meta = json.loads(header["__metadata__"]["vmr"])
        header["__metadata__"]["vmr"] = json_text(rng, exchanged(rng, meta, rng.choice((1, 1, 2))))


def odd_numbers(rng: random.Random, header: dict[str, Any], data: bytes) -> bytes:
    """Data with NaN, infinity or huge numbers in some tensor."""
    begin, end = header[rng.choice([name for name in header if name != "__metadata__"])]["data_offsets"]
    value = rng.choice((np.nan, np.inf, -np.inf, 3e38, 0.0))
    count = (end - begin) // 4
    wanted = np.full(count, value, "f4").tobytes() if rng.random() < 0.5 else np.float32(value).tobytes()
    return data[:begin] + wanted + data[begin + len(wanted) :]


def damaged(rng: random.Random, content: bytes) -> bytes:
    """A safetensors file with something wrong."""
    header, data = parts_of(content)
    kind = rng.random()
    if kind < 0.35:
        other_metadata(rng, header)
    elif kind < 0.65:
        other_tensor(rng, header)
    elif kind < 0.72:
        data = odd_numbers(rng, header, data)
    elif kind < 0.77:
        return joined(json_text(rng, header).encode("utf-8", "surrogatepass"), data)
    elif kind < 0.82:
        return joined(header, data, rng.choice((0, 1, 7, 1 << 63, (1 << 64) - 1, 100_000_001, 5000)))
    elif kind < 0.88:
        return content[: rng.choice((0, 4, 8, 100, rng.randrange(len(content))))]
    elif kind < 0.94:
        return flipped(rng, content, 0, 4000)
    else:
        return damaged_bytes(rng, content)
    return joined(header, data)


def pytorch(rng: random.Random) -> bytes:
    """A PyTorch file: tensors, options, or what is never loaded; often damaged."""
    tensor = torch.zeros(3, 2)
    values: tuple[Any, ...] = (
        {"model_parameters": {"fc_comp.bias": tensor[:, 0]}},
        *(
            {"state_dict": {"module.x": tensor}},
            {"model": {"a": 5}},
            [tensor],
            tensor,
            {},
            {5: tensor},
            None,
            Trap(),
        ),
        *(
            {"x": Trap()},
            {"model": tensor.to_sparse()},
            {"a": tensor.to(torch.bfloat16)},
            {"a": tensor.view(-1)[::2]},
        ),
        {"net": {"net": {"net": tensor}}},
    )
    sink = io.BytesIO()
    value = rng.choice(values)
    if rng.random() < 0.2:
        pickle.dump(value, sink)
    else:
        torch.save(value, sink, _use_new_zipfile_serialization=rng.random() < 0.7)
    content = sink.getvalue()
    return rng.choice((damaged_bytes, flipped))(rng, content) if rng.random() < 0.6 else content


def imported(rng: random.Random, folder: Path, samples: Path) -> Case:
    """Weights of others, as the import commands read them."""
    suffix = rng.choice((".safetensors", ".npz", ".pt", ".pt"))
    path = folder / f"weights{suffix}"
    if suffix == ".safetensors":
        path.write_bytes(
            damaged(
                rng,
                content_of(
                    samples / f"runs/{rng.choice(trained(samples))}/tiny/checkpoints/best.safetensors"
                ),
            )
        )
    elif suffix == ".npz":
        path.write_bytes(
            npz(rng, {"fc_comp.bias.npy": plain(np.zeros(3, "f4")), "mask_vec.npy": plain(np.zeros(2, "f4"))})
        )
    else:
        path.write_bytes(pytorch(rng))
    package = rng.choice(trained(samples))
    options: list[object] = [
        "--cfg",
        samples / f"cfg/{package}.yaml",
        "--quirks",
        "released",
        "--weights",
        path,
    ]
    options += ["--data-root", samples / "data", "--out", folder / "out.safetensors"]
    if package in ("rgn", "cfmr"):
        words = folder / "words.txt"
        words.write_bytes(
            rng.choice((b"red\ncircle\n", b"", b"red\nred\n", b"\xff\n", b"red\tx\r\ncircle\n"))
        )
        options += ["--words", words]
    return Case([Call(f"{package}-import", options)])


def make(rng: random.Random, folder: Path, samples: Path) -> Case:
    """A damaged file of weights, and the commands that read it."""
    kind = rng.random()
    if kind < 0.2:
        return imported(rng, folder, samples)
    package = rng.choice(trained(samples))
    if kind < 0.35:
        return resumed(rng, folder, samples, package)
    path = folder / "mine.safetensors"
    path.write_bytes(damaged(rng, content_of(samples / f"runs/{package}/tiny/checkpoints/best.safetensors")))
    data: list[object] = ["--data-root", samples / "data"]
    request: list[object] = ["--video", "test-0000", "--query", "the red circle spins"]
    call = rng.choice(
        (
            Call(f"{package}-predict", ["--checkpoint", path, *data, *request]),
            Call(f"{package}-predict", ["--checkpoint", path, *data, *request, "--json"]),
            Call(f"{package}-eval", ["--checkpoint", path, *data, "--out", folder / "out.jsonl"]),
            Call("cfmr-index", ["--checkpoint", path, *data, "--out", folder / "index"]),
        )
    )
    return Case([call])


def resumed(rng: random.Random, folder: Path, samples: Path, package: str) -> Case:
    """A run folder with a damaged checkpoint, in which training goes on."""
    source, run = samples / f"runs/{package}/tiny", folder / f"runs/{package}/tiny"
    (run / "checkpoints").mkdir(parents=True)
    broken = rng.choice(("last", "last", "best"))
    for name in ("last", "best"):
        content = content_of(source / f"checkpoints/{name}.safetensors")
        (run / f"checkpoints/{name}.safetensors").write_bytes(
            damaged(rng, content) if name == broken else content
        )
    for name in ("config.yaml", "metrics.jsonl"):
        (run / name).write_bytes(content_of(source / name))
    return Case([resume(folder, samples, package)])


def resume(folder: Path, samples: Path, package: str) -> Call:
    """The command that goes on with the run in a case's folder, for another epoch."""
    arguments = [
        "--cfg",
        samples / f"cfg/{package}.yaml",
        "--data-root",
        samples / "data",
        "--runs",
        folder / "runs",
    ]
    return Call(f"{package}-train", [*arguments, "--resume", "--train.epochs", 2])
