"""Checkpoints: one safetensors file each, tensors plus one JSON text, never a pickle."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from vmr_common.errors import UserError, listed
from vmr_common.files import atomic_path
from vmr_common.run_files import CHECKPOINTS, current

FORMAT = 1
_KEY = "vmr"  # the one entry of the file's metadata
_REQUIRED = ("package", "role", "update", "epoch", "batch", "state", "describe")

Role = Literal["best", "last"]


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint file holds."""

    path: Path
    """The file."""
    tensors: dict[str, Tensor]
    """All tensors, on the CPU, named `model.*`, `ema.*`, `optim.*` and `state.*`."""
    meta: dict[str, Any]
    """Position, configuration, task state and provenance; docs/distributed.md lists the keys."""

    def part(self, prefix: str) -> dict[str, Tensor]:
        """The tensors under one prefix (`model`, `ema`, `optim`, `state`), without it."""
        start = prefix + "."
        return {name[len(start) :]: t for name, t in self.tensors.items() if name.startswith(start)}

    @property
    def weights(self) -> dict[str, Tensor]:
        """The weights to evaluate: their average where one was kept, else the trained ones."""
        return self.part("ema") or self.part("model")

    @property
    def state(self) -> dict[str, Any]:
        """What the task's `state()` gave."""
        return self.meta["state"]  # type: ignore[no-any-return]

    @property
    def state_tensors(self) -> dict[str, Tensor]:
        """What the task's `state_tensors()` gave."""
        return self.part("state")


def save_checkpoint(
    path: str | Path, parts: Mapping[str, Mapping[str, Tensor]], meta: Mapping[str, Any]
) -> None:
    """Writes a checkpoint atomically: whatever goes wrong, `path` is the old file or the new one, whole.

    Args:
        path: The file, by convention ending in ``.safetensors``.
        parts: Tensors by prefix (`model`, `ema`, `optim`, `state`) and name.
        meta: Must be JSON; `format` is added.

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
    with atomic_path(path) as temporary:
        try:
            save_file(tensors, temporary, metadata={_KEY: text})
        except SafetensorError as error:
            raise OSError(str(error).rpartition("I/O error: ")[2]) from error


def find_checkpoint(path: str | Path, prefer: Role = "best") -> Path:
    """The checkpoint file that `path` means: itself, or the preferred (else the other) one of a run folder.

    Raises:
        UserError: if there is none.
    """
    path = Path(path)
    if not path.is_dir():
        if not path.exists():
            raise UserError(f"{path}: no such checkpoint file or run folder")
        return path
    roles: list[Role] = ["best", "last"] if prefer == "best" else ["last", "best"]
    for role in roles:
        name = f"{role}.safetensors"
        for file in (current(path, f"{CHECKPOINTS}/{name}"), path / name):
            if file.is_file():
                return file
    raise UserError(
        f"{path}: this folder holds no checkpoint; expected checkpoints/best.safetensors or last.safetensors"
    )


def load_checkpoint(path: str | Path, *, package: str | None = None, prefer: Role = "best") -> Checkpoint:
    """Reads a checkpoint from a file or a run folder.

    Args:
        path: A checkpoint file, a run folder, or its `checkpoints` folder.
        package: The package that must have written it; None accepts any.
        prefer: Which one of a run folder.

    Raises:
        UserError: one line, for a missing file, a file that is not safetensors, cut short, not one of ours,
            of another format version or of another package.
    """
    file = find_checkpoint(path, prefer)
    try:
        with safe_open(file, framework="pt") as opened:
            meta = _parse_meta(file, opened.metadata(), package)
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 - not a dict
    except (SafetensorError, OSError) as error:
        raise UserError(f"{file}: {_why_unreadable(file, error)}") from None
    return Checkpoint(file, tensors, meta)


def load_meta(path: str | Path, *, package: str | None = None) -> dict[str, Any]:
    """Reads only the JSON part of a checkpoint file; raises as `load_checkpoint` does."""
    try:
        with safe_open(path, framework="pt") as opened:
            return _parse_meta(Path(path), opened.metadata(), package)
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path}: {_why_unreadable(Path(path), error)}") from None


def _parse_meta(file: Path, metadata: dict[str, str] | None, package: str | None) -> dict[str, Any]:
    if _KEY not in (metadata or {}):
        others = ", ".join(metadata or {}) or "none"
        raise UserError(
            f"{file}: safetensors, but not a checkpoint of ours: expected metadata {_KEY!r}, found {others}"
        )
    try:
        meta = json.loads((metadata or {})[_KEY])
    except json.JSONDecodeError as error:
        raise UserError(f"{file}: metadata {_KEY!r} is not JSON ({error.msg})") from None
    found = meta.get("format") if isinstance(meta, dict) else None
    if found != FORMAT:
        raise UserError(f"{file}: checkpoint format {found!r}, expected {FORMAT}")
    missing = [key for key in _REQUIRED if key not in meta]
    if missing:
        raise UserError(f"{file}: metadata key {missing[0]!r} is missing (found: {', '.join(meta)})")
    if package is not None and meta["package"] != package:
        raise UserError(f"{file}: a checkpoint of package {meta['package']!r}, expected {package!r}")
    return meta  # type: ignore[no-any-return]


def _why_unreadable(file: Path, error: Exception) -> str:
    try:
        with file.open("rb") as opened:
            head = opened.read(2)
    except OSError as problem:
        return f"cannot be read ({problem.strerror or problem})"
    if head[:2] == b"PK" or head[:1] == b"\x80":
        return "looks like a pickled PyTorch file, which is never loaded; expected a safetensors checkpoint"
    return f"not a whole safetensors file ({error}); it may be cut short or something else"


def load_weights(model: nn.Module, weights: Mapping[str, Tensor], path: str | Path) -> None:
    """Loads all weights into the model, strictly.

    Args:
        model: Receives them.
        weights: By parameter or buffer name.
        path: Where they come from, for the message.

    Raises:
        UserError: one line that names the first weights missing, unexpected or of another shape.
    """
    own = model.state_dict()
    missing = [name for name in own if name not in weights]
    unexpected = [name for name in weights if name not in own]
    shapes = [
        f"{name} (found {tuple(weights[name].shape)}, expected {tuple(own[name].shape)})"
        for name in own
        if name in weights and weights[name].shape != own[name].shape
    ]
    lists = {"missing": missing, "unexpected": unexpected, "of another shape": shapes}
    problems = [f"{len(names)} {kind}: {listed(names, 3)}" for kind, names in lists.items() if names]
    if problems:
        raise UserError(f"{path}: the weights do not fit this model; {'; '.join(problems)}")
    with torch.no_grad():
        model.load_state_dict(dict(weights))
