"""The folder of one run: configuration, metrics, checkpoints and events."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import math
import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import yaml

from vmr_common.errors import UserError
from vmr_common.folder_lock import LOCK, FolderLock
from vmr_common.io import atomic_path, no_links, write_json_lines, write_text, writing
from vmr_train import distributed, run_files, run_swap
from vmr_train.checkpoint import load_meta
from vmr_train.history import read_rows

logger = logging.getLogger(__name__)
_DOING = "training"


class RunFolder:
    """``runs/<package>/<name>/``, held by one training until the block ends. Only rank 0 touches the disk; what fails
    there is raised on every rank.

    An earlier run that is overwritten stays whole until `finish`: the new one is written in `.new` inside its folder.

    Args:
        path: The folder; created with its parents by `start`.
        resume: The folder must exist, and the run in it will be continued: one in `.new` first.
        overwrite: An earlier run in the folder will be replaced (only files that a run writes, nothing else).

    Raises:
        UserError: if the folder already holds a run and neither is given, if there is nothing to resume, if another
            process trains there, if an entry of a run is a symbolic link or no run's, or if the folder cannot be
            written.
    """

    def __init__(self, path: str | Path, *, resume: bool = False, overwrite: bool = False) -> None:
        self.path = Path(path)
        self.resume, self._overwrite = resume, overwrite
        self._lock: FolderLock | None = None
        self._started = False
        self.overwrites, self.work = False, self.path
        self.overwrites = distributed.from_rank_zero(self._claim)
        """Whether the run will replace an earlier one."""
        self.work = self.path / run_files.NEW if self.overwrites else self.path
        """Where the run is written."""

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Lets others train there."""
        if self._lock is not None:
            with contextlib.suppress(OSError):
                run_swap.discard(self.path / run_files.FINAL)
                if self.overwrites and not self.last.exists():  # nothing that could be resumed
                    run_swap.discard(self.work)
            self._lock.close()
            self._lock = None

    def _claim(self) -> bool:
        earlier = self.check(self.path, resume=self.resume, overwrite=self._overwrite)
        if self.path.is_dir():
            self._lock = FolderLock(self.path, _DOING)
            try:
                with writing(self.path):
                    run_swap.complete(self.path)
                earlier = self.check(self.path, resume=self.resume, overwrite=self._overwrite)
            except BaseException:
                self.close()
                raise
        if self._overwrite:
            return bool(earlier)
        return self.resume and run_files.unfinished(self.path) is not None

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
        run_swap.refuse_foreign(path)
        names = (*run_files.ALL, run_files.NEW, run_files.READY)
        earlier = [name for name in names if (path / name).exists()]
        if earlier and not (resume or overwrite):
            raise UserError(
                f"{path} already holds a run ({', '.join(earlier)}): pass --resume to continue it, "
                "--overwrite to replace it, or choose another --name"
            )
        # --resume begins anew where there is no checkpoint
        begins = overwrite or not (path / run_files.LAST).exists()
        if earlier and begins and not _is_run(path):
            raise UserError(
                f"{path}: holds {', '.join(earlier)}, but nothing shows that a run wrote it (no checkpoint of ours): "
                "not overwritten, choose another --name"
            )
        return earlier

    @property
    def config(self) -> Path:
        """The resolved configuration."""
        return self.work / run_files.CONFIG

    @property
    def metrics(self) -> Path:
        """One JSON object per line; docs/distributed.md lists the keys."""
        return self.work / run_files.METRICS

    @property
    def last(self) -> Path:
        """The checkpoint from which the run resumes."""
        return self.work / run_files.LAST

    @property
    def best(self) -> Path:
        """The selected weights."""
        return self.work / run_files.BEST

    @property
    def events(self) -> Path:
        """TensorBoard's folder."""
        return self.work / run_files.EVENTS

    @property
    def final(self) -> Path:
        """The folder of the last files of a run, until `finish` puts all of them in their places at once."""
        return self.work if self.overwrites else self.path / run_files.FINAL

    def start(self) -> None:
        """Makes the folder ready to be written; call it on every rank, once nothing can be wrong any more."""
        if not self._started:
            distributed.from_rank_zero(self._prepare)
            self._started = True

    def _prepare(self) -> None:
        if self._lock is None:
            self._lock = FolderLock(self.path, _DOING)
            self.check(self.path, resume=self.resume, overwrite=self._overwrite)
        with writing(self.path):
            run_swap.discard(self.path / run_files.FINAL)
            if self.overwrites and not self.resume:
                run_swap.discard(self.work)
            if self.overwrites and self.resume:
                logger.info(
                    f"{self.path}: going on with the run that is to replace the one there (to resume that one "
                    f"instead, delete {self.work})"
                )
            self.last.parent.mkdir(parents=True, exist_ok=True)
            run_swap.sweep(self.work)
        with atomic_path(self.last.parent / ".writable") as probe:
            probe.touch()
        (self.last.parent / ".writable").unlink()

    def guard(self) -> None:
        """Makes sure that what is written next stays in the folder (rank 0 only).

        Raises:
            UserError: if somebody has put a symbolic link there.
        """
        no_links(self.path, (run_files.NEW, run_files.FINAL))
        no_links(self.work, (*run_files.FOLDERS, *run_files.FILES))

    def finish(self) -> None:
        """Puts the last files in their places, with them a run that replaces another; call it on every rank.

        Raises:
            UserError: if the disk fails.
        """
        distributed.from_rank_zero(self._put_in_place)
        self.overwrites, self.work = False, self.path

    def _put_in_place(self) -> None:
        self.guard()
        if self.final.is_dir() and self.final != self.path:
            run_swap.put_in_place(self.path, self.final.name)

    def write_config(self, config: Mapping[str, Any]) -> None:
        """Writes the resolved configuration as YAML; call it on every rank."""
        distributed.from_rank_zero(lambda: self._write_config(config))

    def _write_config(self, config: Mapping[str, Any]) -> None:
        self.guard()
        write_text(self.config, yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True))

    def append(self, row: Mapping[str, Any]) -> None:
        """Appends one row to the metrics (rank 0 only); numbers that are not finite become null.

        Raises:
            UserError: if it cannot be written; the file then still ends with a whole line.
        """
        clean = {key: None if isinstance(v, float) and not math.isfinite(v) else v for key, v in row.items()}
        line = (json.dumps(clean, ensure_ascii=False, allow_nan=False) + "\n").encode()
        self.guard()
        with writing(self.metrics), _opened(self.metrics, os.O_CREAT | os.O_APPEND) as handle:
            _append(handle, line)

    def keep_rows(self, keep: Callable[[dict[str, Any]], bool]) -> None:
        """Drops the metrics rows that `keep` refuses, and a last line cut short by a kill (rank 0 only)."""
        if not self.metrics.exists():
            return
        text = self.metrics.read_bytes()
        if not text.endswith(b"\n"):
            with writing(self.metrics), _opened(self.metrics) as handle:
                os.ftruncate(handle, text.rfind(b"\n") + 1)
        write_json_lines(self.metrics, filter(keep, list(read_rows(self.metrics))))

    def sync(self) -> None:
        """Makes sure that the metrics are on the disk (rank 0 only)."""
        if self.metrics.exists():
            with writing(self.metrics), _opened(self.metrics) as handle:
                os.fsync(handle)


def _is_run(path: Path) -> bool:
    """True if a folder holds a run: a training has locked it, or a checkpoint of ours lies there."""
    with contextlib.suppress(OSError):
        if (path / LOCK).read_bytes()[:100].startswith(_DOING.encode()):
            return True
    for name in (run_files.LAST, run_files.BEST):
        with contextlib.suppress(UserError):
            load_meta(path / name)
            return True
    return False


@contextlib.contextmanager
def _opened(path: Path, flags: int = 0) -> Iterator[int]:
    """A file to write to, which is not opened through a link."""
    handle = os.open(path, os.O_WRONLY | getattr(os, "O_NOFOLLOW", 0) | flags, 0o666)
    try:
        yield handle
    finally:
        os.close(handle)


def _append(handle: int, data: bytes) -> None:
    """Appends all of the data to a file, or nothing."""
    size = os.fstat(handle).st_size
    try:
        while data:
            data = data[os.write(handle, data) :]
    except OSError:
        os.ftruncate(handle, size)
        raise


class Events:
    """TensorBoard events of the rows of the metrics; does nothing unless asked for. Only rank 0 writes.

    Args:
        run: Gets one more file of events.
        wanted: Whether there are to be events.
        from_update: Events of later updates, which an earlier process wrote, no longer count.

    Raises:
        UserError: if asked for and the extra is not installed, or the file cannot be written; on every rank.
    """

    def __init__(self, run: RunFolder, *, wanted: bool, from_update: int) -> None:
        self._run, self._file = run, -1
        if wanted:
            distributed.from_rank_zero(lambda: self._open(from_update))

    def _open(self, from_update: int) -> None:
        try:
            from tensorboard.compat.proto.event_pb2 import Event, SessionLog
        except ImportError:
            raise UserError(
                "train.tensorboard needs the extra: pip install 'vmr-train[tensorboard]'"
            ) from None
        self._run.guard()
        now = time.time()
        # as TensorBoard names them; it reads the files of a folder in the order of their names
        part = f"{time.time_ns() % 10**9:09d}"
        name = f"{run_files.EVENT_FILES}{int(now):010d}.{socket.gethostname()}.{os.getpid()}.{part}"
        self._path = self._run.events / name
        with writing(self._path):
            self._path.parent.mkdir(exist_ok=True)
            self._file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o666)
        self._add(Event(wall_time=now, file_version="brain.Event:2"))
        start = SessionLog(status=SessionLog.START)
        self._add(Event(wall_time=now, step=from_update + 1, session_log=start))

    def write(self, row: Mapping[str, Any]) -> None:
        """Writes the numbers of a row at its update (rank 0 only).

        Raises:
            UserError: if they cannot be written.
        """
        if self._file >= 0:
            from tensorboard.compat.proto.event_pb2 import Event
            from tensorboard.compat.proto.summary_pb2 import Summary

            values = [
                Summary.Value(tag=f"{row['kind']}/{key}", simple_value=value)
                for key, value in row.items()
                if isinstance(value, float)
            ]
            self._add(Event(wall_time=time.time(), step=row["update"], summary=Summary(value=values)))

    def _add(self, event: Any) -> None:
        from tensorboard.summary.writer.record_writer import RecordWriter

        record = io.BytesIO()
        RecordWriter(record).write(event.SerializeToString())
        with writing(self._path):
            _append(self._file, record.getvalue())

    def close(self) -> None:
        """Ends the events file."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
