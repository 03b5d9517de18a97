"""The folder of one run: configuration, metrics, checkpoints and events."""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from vmr_common import run_files
from vmr_common.errors import UserError
from vmr_common.files import atomic_path, read_json_lines, write_json_lines, write_text
from vmr_common.training import distributed


class RunFolder:
    """``runs/<package>/<name>/``. Only rank 0 touches the disk; what fails there is raised on every rank.

    Args:
        path: The folder; created with its parents.
        resume: The folder must exist, and the run in it will be continued.
        overwrite: An earlier run in the folder is deleted (only files that a run writes, nothing else).

    Raises:
        UserError: if the folder already holds a run and neither is given, if there is nothing to resume, or
            if the folder cannot be written.
    """

    def __init__(self, path: str | Path, *, resume: bool = False, overwrite: bool = False) -> None:
        self.path = Path(path)
        distributed.from_rank_zero(lambda: self._prepare(resume, overwrite))

    @staticmethod
    def check(path: str | Path, *, resume: bool = False, overwrite: bool = False) -> list[str]:
        """The names of what an earlier run left in a folder; touches nothing, so it can be asked early.

        Raises:
            UserError: where the constructor would, except for what only writing shows.
        """
        path = Path(path)
        if resume and overwrite:
            raise UserError("--resume and --overwrite exclude each other")
        if resume and not path.is_dir():
            raise UserError(f"{path}: nothing to resume, no such run folder")
        if path.exists() and not path.is_dir():
            raise UserError(f"{path}: expected a run folder, found a file")
        earlier = [name for name in run_files.ALL if (path / name).exists()]
        if earlier and not (resume or overwrite):
            raise UserError(
                f"{path} already holds a run ({', '.join(earlier)}): pass --resume to continue it, "
                "--overwrite to delete it, or choose another --name"
            )
        return earlier

    @property
    def config(self) -> Path:
        """The resolved configuration."""
        return self.path / run_files.CONFIG

    @property
    def metrics(self) -> Path:
        """One JSON object per line; docs/distributed.md lists the keys."""
        return self.path / run_files.METRICS

    @property
    def last(self) -> Path:
        """The checkpoint from which the run resumes."""
        return self.path / run_files.CHECKPOINTS / "last.safetensors"

    @property
    def best(self) -> Path:
        """The selected weights."""
        return self.path / run_files.CHECKPOINTS / "best.safetensors"

    @property
    def events(self) -> Path:
        """TensorBoard's folder."""
        return self.path / run_files.EVENTS

    def _prepare(self, resume: bool, overwrite: bool) -> None:
        earlier = self.check(self.path, resume=resume, overwrite=overwrite)
        try:
            if overwrite:
                for name in earlier:
                    _delete(self.path / name)
            self.last.parent.mkdir(parents=True, exist_ok=True)
            for left in self.last.parent.glob(".*.partial"):  # of a process that was killed while writing
                left.unlink()
        except OSError as error:
            raise UserError(f"cannot write {self.path}: {error.strerror or error}") from error
        with atomic_path(self.last.parent / ".writable") as probe:
            probe.touch()
        (self.last.parent / ".writable").unlink()

    def write_config(self, text: str) -> None:
        """Writes the resolved configuration (YAML); call it on every rank."""
        distributed.from_rank_zero(lambda: write_text(self.config, text))

    def append(self, row: Mapping[str, Any]) -> None:
        """Appends one row to the metrics (rank 0 only); numbers that are not finite become null.

        Raises:
            UserError: if it cannot be written; the file then still ends with a whole line.
        """
        clean = {key: None if isinstance(v, float) and not math.isfinite(v) else v for key, v in row.items()}
        line = json.dumps(clean, ensure_ascii=False, allow_nan=False) + "\n"
        size = self.metrics.stat().st_size if self.metrics.exists() else 0
        try:
            with self.metrics.open("a", encoding="utf-8") as file:
                file.write(line)
        except OSError as error:
            if self.metrics.exists():
                os.truncate(self.metrics, size)
            raise UserError(f"cannot write {self.metrics}: {error.strerror or error}") from error

    def keep_rows(self, keep: Callable[[dict[str, Any]], bool]) -> None:
        """Drops the metrics rows that `keep` refuses, and a last line cut short by a kill (rank 0 only)."""
        if not self.metrics.exists():
            return
        text = self.metrics.read_bytes()
        if not text.endswith(b"\n"):
            os.truncate(self.metrics, text.rfind(b"\n") + 1)
        rows = [row for _, row in read_json_lines(self.metrics)]
        write_json_lines(self.metrics, filter(keep, rows))

    def sync(self) -> None:
        """Makes sure that the metrics are on the disk (rank 0 only)."""
        if self.metrics.exists():
            with self.metrics.open("rb+") as file:
                os.fsync(file.fileno())


def _delete(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


class Events:
    """TensorBoard events of the rows of the metrics; does nothing unless asked for.

    Raises:
        UserError: if asked for and the extra is not installed.
    """

    def __init__(self, folder: Path, *, wanted: bool, from_update: int) -> None:
        self._writer: Any = None
        if wanted and distributed.rank() == 0:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError:
                raise UserError(
                    "train.tensorboard needs the extra: pip install 'vmr-common[tensorboard]'"
                ) from None
            self._writer = SummaryWriter(folder, purge_step=from_update + 1)

    def write(self, row: Mapping[str, Any]) -> None:
        """Writes the numbers of a row at its update."""
        if self._writer is not None:
            for key, value in row.items():
                if isinstance(value, float):
                    self._writer.add_scalar(f"{row['kind']}/{key}", value, row["update"])

    def close(self) -> None:
        """Ends the events file."""
        if self._writer is not None:
            self._writer.close()
