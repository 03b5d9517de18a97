"""Checkpoints: one safetensors file each, tensors plus one JSON text, never a pickle."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NotRequired, TypedDict

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from vmr_common.boundary import boundary, open_regular
from vmr_common.errors import UserError, quoted, shortened
from vmr_common.io import atomic_path, parse_json
from vmr_common.schema import conform
from vmr_train.config import Select
from vmr_train.fingerprint import Fingerprint
from vmr_train.presence import Calibration, CalibrationJson
from vmr_train.run_files import Role, find_checkpoint

FORMAT = 1
HEADER = 24 << 20
"""Bytes of a checkpoint file before its tensors at the most: a million words take some 14 MB."""
PARTS = ("model", "ema", "optim", "state")
"""What the name of a tensor begins with."""
_KEY = "vmr"  # the one entry of the file's metadata

Versions = TypedDict(
    "Versions",
    {
        "vmr-common": str,
        "torch": str,
        "python": str,
        "processes": int,
        "device": str,
        "threads": NotRequired[int],
        "cpu": NotRequired[str],
        "kernels": NotRequired[str],
    },
)


class _Mean(TypedDict):
    queries: int
    sums: dict[str, float]


class Selection(TypedDict):
    """The choice of the best weights of a run, and the best value when the checkpoint was written."""

    select: Select
    metric: str
    value: float | None
    epoch: int | None


class _SplitSource(TypedDict):
    name: str
    queries: int
    hash: str


class _FeaturesSource(TypedDict):
    files: list[str]
    hash: str
    manifest: dict[str, Any] | None
    bytes: NotRequired[int]
    times: NotRequired[str]


class Description(TypedDict):
    """The origin of a checkpoint: its configuration, and the data or weights that it was made of."""

    package: NotRequired[str]
    config: NotRequired[dict[str, Any]]
    data_root: NotRequired[str]
    splits: NotRequired[dict[str, _SplitSource | None]]
    features: NotRequired[_FeaturesSource]
    words: NotRequired[Fingerprint]
    manifests: NotRequired[dict[str, dict[str, Any] | None]]
    imported_from: NotRequired[str]


class Meta(TypedDict):
    """The JSON part of a checkpoint; docs/distributed.md says what each key means.

    What training adds is there or not as a whole: imported weights lack it.
    """

    format: int
    package: str
    role: Role
    update: int
    epoch: int
    batch: int
    state: dict[str, Any]
    describe: Description
    seconds: NotRequired[float]
    interval: NotRequired[_Mean]
    whole_epoch: NotRequired[_Mean]
    selection: NotRequired[Selection]
    train_queries: NotRequired[int]
    train: NotRequired[dict[str, Any]]
    optim: NotRequired[dict[str, Any]]
    scaler: NotRequired[dict[str, float]]
    versions: NotRequired[Versions]
    metrics: NotRequired[dict[str, Any]]
    presence: NotRequired[CalibrationJson]


_TRAINED = (
    "seconds",
    "interval",
    "whole_epoch",
    "selection",
    "train_queries",
    "train",
    "optim",
    "scaler",
    "versions",
)


@dataclass(frozen=True)
class Checkpoint:
    """The contents of a checkpoint file."""

    path: Path
    """The file."""
    tensors: dict[str, Tensor]
    """All tensors, on the CPU, named `model.*`, `ema.*`, `optim.*` and `state.*`."""
    meta: Meta
    """Position, configuration, method state and provenance."""

    def part(self, prefix: str) -> dict[str, Tensor]:
        """The tensors under one prefix (`model`, `ema`, `optim`, `state`), without it."""
        start = prefix + "."
        return {name[len(start) :]: t for name, t in self.tensors.items() if name.startswith(start)}

    @property
    def weights(self) -> dict[str, Tensor]:
        """The weights to evaluate: their average where one was kept, else the trained ones."""
        return self.part("ema") or self.part("model")

    @property
    def data_root(self) -> str | None:
        """The folder of the data sets that it was made with, an absolute path; earlier versions kept none."""
        return self.meta["describe"].get("data_root")

    @property
    def presence(self) -> Calibration | None:
        """The calibration that turns evidence into the probability of presence; None where none was made."""
        return Calibration.from_json(self.meta["presence"]) if "presence" in self.meta else None

    @property
    def state(self) -> dict[str, Any]:
        """The result of the method's `state()`."""
        return self.meta["state"]

    @property
    def state_tensors(self) -> dict[str, Tensor]:
        """The result of the method's `state_tensors()`."""
        return self.part("state")


def save_checkpoint(
    path: str | Path, parts: Mapping[str, Mapping[str, Tensor]], meta: Mapping[str, Any]
) -> None:
    """Writes a checkpoint atomically: whatever goes wrong, `path` is the old file or the new one, whole.

    Args:
        path: The file, by convention ending in ``.safetensors``.
        parts: Tensors by prefix (`model`, `ema`, `optim`, `state`) and name.
        meta: Of the form of `Meta`; `format` is added.

    Raises:
        UserError: if the folder is read-only, the disk is full, and so on; names the file and the reason.
    """
    # copies, because tied weights share memory and the format stores each name by itself
    tensors = {
        f"{prefix}.{name}": tensor.detach().to("cpu", copy=True).contiguous()
        for prefix, part in parts.items()
        for name, tensor in part.items()
    }
    text = json.dumps({"format": FORMAT, **meta}, ensure_ascii=False)
    if len(json.dumps(text, ensure_ascii=False).encode()) > HEADER // 2:
        raise UserError(f"cannot write {path}: words and configuration take more than {HEADER // 2:,} bytes")
    with atomic_path(path) as temporary:
        try:
            save_file(tensors, temporary, metadata={_KEY: text})
        except SafetensorError as error:
            raise OSError(str(error).rpartition("I/O error: ")[2]) from error


def amend_checkpoint(path: str | Path, changes: Mapping[str, Any]) -> None:
    """Changes keys of a checkpoint's JSON part (None deletes one), atomically; its tensors keep every bit.

    Raises:
        UserError: as `load_checkpoint` and `save_checkpoint`.
    """
    found = load_checkpoint(path)
    meta = {key: value for key, value in {**found.meta, **changes}.items() if value is not None}
    save_checkpoint(path, {part: found.part(part) for part in PARTS}, meta)


def load_checkpoint(
    path: str | Path, *, package: str | None = None, prefer: Role = "best", trained: bool = False
) -> Checkpoint:
    """Reads a checkpoint from a file or a run folder.

    Nothing in it is trusted: the JSON part is of the form of `Meta`, and what methods, optimisers and models take from
    it is checked where they take it (see `weights.require_fit`).

    Args:
        path: A checkpoint file, a run folder, or its `checkpoints` folder.
        package: The package that must have written it; None accepts any.
        prefer: Which one of a run folder.
        trained: It must hold what training adds to a checkpoint; imported weights lack it.

    Raises:
        UserError: one line, for a missing file, a file that is not safetensors, cut short, not one of ours,
            of another format version or of another package; names the key where one is wrong.
    """
    file = find_checkpoint(path, prefer)
    meta = load_meta(file, package=package, trained=trained)
    with _safetensors(file), safe_open(file, framework="pt") as opened:
        tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 - not a dict
    foreign = [name for name in tensors if name.partition(".")[0] not in PARTS]
    if foreign:
        raise UserError(
            f"{file}: found the tensor {quoted(foreign[0], 60)}, expected names in {', '.join(PARTS)}"
        )
    return Checkpoint(file, tensors, meta)


def load_meta(path: str | Path, *, package: str | None = None, trained: bool = False) -> Meta:
    """Reads only the JSON part of a checkpoint file; raises as `load_checkpoint` does."""
    file = Path(path)
    with _safetensors(file):
        metadata = _read_metadata(file)
    if _KEY not in metadata:
        others = shortened(", ".join(metadata)) or "none"
        raise UserError(
            f"{file}: safetensors, but not a checkpoint of ours: expected metadata {_KEY!r}, found {others}"
        )
    where = f"{file}: metadata {_KEY!r}"
    meta = parse_json(metadata[_KEY], where)
    found = meta.get("format") if isinstance(meta, dict) else None
    if found != FORMAT:
        raise UserError(f"{file}: checkpoint format {quoted(found, 60)}, expected {FORMAT}")
    checked = conform(meta, Meta, where)
    if package is not None and checked["package"] != package:
        raise UserError(
            f"{file}: a checkpoint of package {quoted(checked['package'], 60)}, expected {package!r}"
        )
    missing = [key for key in _TRAINED if key not in checked]
    if trained and missing:
        raise UserError(f"{where}: key {missing[0]!r} is missing, which training writes")
    return checked


def _read_metadata(file: Path) -> dict[str, str]:
    """The texts in a safetensors header, read without the library, which takes a name twice and any size."""
    with open_regular(file) as opened:
        start = opened.read(8)
        length = int.from_bytes(start, "little")
        if length > HEADER:  # as the first letters of a text say
            raise UserError(f"{file}: not a safetensors checkpoint")
        text = opened.read(length)
    if len(start) < 8 or len(text) < length:
        raise ValueError("the header is not complete")
    header = conform(parse_json(text, f"{file}: header"), dict[str, Any], f"{file}: header")
    return conform(header.get("__metadata__", {}), dict[str, str], f"{file}: header")


@contextlib.contextmanager
def _safetensors(file: Path) -> Iterator[None]:
    """The boundary around whatever reads a safetensors file."""
    try:
        with boundary(f"{file}: not a whole safetensors file, it may be cut short or something else"):
            yield
    except UserError:
        if _looks_pickled(file):
            raise UserError(
                f"{file}: looks like a pickled PyTorch file, which is never loaded; expected a safetensors checkpoint"
            ) from None
        raise


def _looks_pickled(file: Path) -> bool:
    """True if a file begins as PyTorch's do, as a zip archive or a pickle; False where it cannot be read."""
    try:
        with open_regular(file) as opened:
            head = opened.read(2)
    except (OSError, UserError):
        return False
    return head == b"PK" or head[:1] == b"\x80"
