"""Fingerprints that prove files to be the same ones again: the hash of their bytes."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TypedDict

from tqdm import tqdm

from vmr_common.boundary import boundary, open_regular

TRUSTED_FROM = 4 << 30
"""Bytes from which on files of the names, sizes and times that are known already are not read again."""

_CHANGES_UNREAD = "lock.mdb"  # LMDB's, which readers write to


class Fingerprint(TypedDict):
    """The record that a checkpoint keeps of files that a run reads."""

    files: list[str]
    """Names of the files and folders, for people."""
    bytes: int
    hash: str
    """``sha256:`` over the bytes of all files, and inside folders their names: a copy elsewhere has the same one."""
    times: str
    """SHA-256 of names, sizes and times of change."""


def fingerprint(paths: Sequence[Path], known: Fingerprint | None = None) -> Fingerprint:
    """The fingerprint of files, and of all files below folders.

    Args:
        paths: Their order counts.
        known: From an earlier time. Where 4 GiB and more have the names, sizes and times that it knows, its hash is
            taken and nothing is read.

    Raises:
        UserError: if a file cannot be read.
    """
    files = [entry for path in paths for entry in _files(path)]
    sizes, times = [], hashlib.sha256()
    for name, path in files:
        with boundary(f"cannot read {path}"):
            found = path.stat()
        sizes.append(found.st_size)
        times.update(f"{name}\0{found.st_size} {found.st_mtime_ns}\n".encode())
    total, changed = sum(sizes), times.hexdigest()
    if known is not None and total >= TRUSTED_FROM and known["times"] == changed:
        content = known["hash"]
    else:
        content = "sha256:" + _content(files, sizes, total)
    return {"files": [path.name for path in paths], "bytes": total, "hash": content, "times": changed}


def _files(path: Path) -> list[tuple[str, Path]]:
    """The files at or below a path, by their names below it."""
    if not path.is_dir():
        return [("", path)]
    below = sorted(file for file in path.rglob("*") if file.is_file() and file.name != _CHANGES_UNREAD)
    return [(file.relative_to(path).as_posix(), file) for file in below]


def _content(files: Sequence[tuple[str, Path]], sizes: Sequence[int], total: int) -> str:
    digest = hashlib.sha256()
    with tqdm(
        total=total, desc="hash files", unit="B", unit_scale=True, delay=2, leave=False, disable=None
    ) as bar:
        for (name, path), size in zip(files, sizes, strict=True):
            digest.update(f"{name}\0{size}\0".encode())
            with boundary(f"cannot read {path}"), open_regular(path) as file:
                while block := file.read(1 << 20):
                    digest.update(block)
                    bar.update(len(block))
    return digest.hexdigest()
