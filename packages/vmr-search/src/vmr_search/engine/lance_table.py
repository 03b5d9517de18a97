"""The table of `LanceIndex`: its columns, what is read of it, and LanceDB's threads."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vmr_common.boundary import reason
from vmr_common.errors import UserError
from vmr_search.engine.moment_index import Filter, VideoWindows

TABLE = "windows"
"""Name of the table at its place."""

COLUMNS = {
    "video": "string",
    "number": "int64",
    "nth": "int32",
    "duration": "double",
    "start_s": "double",
    "end_s": "double",
}
"""Type of each column beside the vector: a row is the nth window of a video, whose number is the larger the later it
was added."""

INDEXED_FROM = 20_000
"""Windows from which on there is an inverted file; fewer are scanned."""
MOST_SMALL = 64
"""Small files that additions leave at the most before they are merged."""

_IDENTITY = b"vmr.identity"
_INVERTED = re.compile(r"ivf_(?P<metric>dot|cosine)_(?P<count>[0-9]{1,9})")
_TRAINED_BY = 24  # windows a partition
_ROUNDS = 8
_SAMPLE = 1000  # vectors whose lengths are compared


def connected(place: Path | str, *, create: bool) -> Any:
    """A connection to the database at a place.

    Raises:
        UserError: if LanceDB is not installed, there is no such folder, or the address is none of LanceDB's.
    """
    lancedb = _library()
    if isinstance(place, Path) and not create and not place.is_dir():
        raise UserError(f"{place}: not an index of LanceDB (no such folder)")
    with asking(f"{place}: LanceDB cannot open it"):
        return lancedb.connect(place)


def _library() -> Any:
    # with a single thread LanceDB waits for itself for ever while it makes an index
    for name in ("LANCE_CPU_THREADS", "LANCE_IO_THREADS", "TOKIO_WORKER_THREADS"):
        given = os.environ.get(name, "")
        if given in ("0", "1") or (not given and _cores() < 2):
            os.environ[name] = "2"
    os.environ.setdefault("LANCEDB_LOG", "error")  # its warnings are of its own inner workings
    try:
        import lancedb
    except ImportError:
        raise UserError("the engine lance needs LanceDB: pip install 'vmr-search[lance]'") from None
    return lancedb


def _cores() -> int:
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity is not None else os.cpu_count() or 1


@contextlib.contextmanager
def asking(what: str) -> Iterator[None]:
    """Turns what LanceDB and Arrow raise into one error of the user, which begins with `what`."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        known = isinstance(error, OSError | RuntimeError | ValueError | MemoryError)
        if type(error).__module__ == "builtins" and not known:  # others are ours; those of a library its own
            raise
        raise UserError(f"{what} ({reason(error)})") from None


@contextlib.contextmanager
def flushed(folder: Path | None) -> Iterator[None]:
    """What the block writes below a folder is on its disk afterwards: LanceDB does not wait for that.

    Args:
        folder: Of a database; None for one that is not on this machine.
    """
    known = _files(folder)
    yield
    new = _files(folder) - known
    for path in new | {os.path.dirname(path) for path in new}:
        with contextlib.suppress(FileNotFoundError):
            handle = os.open(path, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)


def _files(folder: Path | None) -> set[str]:
    """The files and folders below a folder, with itself."""
    found: set[str] = set()
    for place, _, files in os.walk(folder) if folder is not None else ():
        found |= {place, *(os.path.join(place, name) for name in files)}
    return found


def table_names(database: Any) -> list[str]:
    """The names of the tables of a database."""
    return list(database.list_tables().tables)


def schema_of(size: int, dtype: str, identity: str) -> Any:
    """The schema of a table."""
    import pyarrow

    kind = pyarrow.float16() if dtype == "float16" else pyarrow.float32()
    fields = [(name, getattr(pyarrow, {"double": "float64"}.get(to, to))()) for name, to in COLUMNS.items()]
    fields.append(("vector", pyarrow.list_(kind, size)))
    return pyarrow.schema(fields, metadata={_IDENTITY: identity.encode()})


def require_ours(schema: Any, place: Path | str, size: int, identity: str) -> str:
    """The dtype of the vectors of a table.

    Raises:
        UserError: if the table is not one of windows of videos, or of vectors of another size or identity.
    """
    if not is_ours(schema):
        raise UserError(f"{place}: the table {TABLE!r} is not one of windows of videos")
    kind = schema.field("vector").type
    if kind.list_size != size:
        raise UserError(f"{place}: vectors of {kind.list_size:,} numbers, expected {size:,}")
    if (schema.metadata or {}).get(_IDENTITY, b"").decode(errors="replace") != identity:
        raise UserError(f"{place}: holds vectors of another model than the index says")
    return _vector_dtype(schema)


def is_ours(schema: Any) -> bool:
    """True if a table has the columns of one of ours."""
    found = dict(zip(schema.names, map(str, schema.types), strict=True))
    found.pop("vector", None)
    return found == COLUMNS and bool(_vector_dtype(schema))


def _vector_dtype(schema: Any) -> str:
    import pyarrow

    if "vector" not in schema.names:
        return ""
    kind = schema.field("vector").type
    if not pyarrow.types.is_fixed_size_list(kind):
        return ""
    return {pyarrow.float16(): "float16", pyarrow.float32(): "float32"}.get(kind.value_type, "")


def rows_of(videos: Sequence[VideoWindows], numbers: Sequence[int], schema: Any) -> Any:
    """The rows of some videos."""
    import pyarrow

    counts = [len(one.windows) for one in videos]
    windows = np.concatenate([one.windows for one in videos])
    vectors = np.concatenate([one.vectors for one in videos])
    kind = schema.field("vector").type
    columns = [
        pyarrow.array(np.repeat(np.array([one.video for one in videos], dtype=object), counts), "string"),
        pyarrow.array(np.repeat(np.array(numbers, dtype=np.int64), counts)),
        pyarrow.array(np.concatenate([np.arange(count, dtype=np.int32) for count in counts])),
        pyarrow.array(np.repeat(np.array([one.duration for one in videos], dtype=np.float64), counts)),
        pyarrow.array(np.ascontiguousarray(windows[:, 0])),
        pyarrow.array(np.ascontiguousarray(windows[:, 1])),
        pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(vectors.reshape(-1)), type=kind),
    ]
    return pyarrow.table(columns, schema=schema)


def numbers_in(batch: Any) -> NDArray[np.int64]:
    """The numbers of the videos of some rows."""
    return values_in(batch, "number")


def values_in(batch: Any, name: str) -> NDArray[Any]:
    """The values of a column of some rows; raises `ValueError` if one lacks."""
    if batch[name].null_count:
        raise ValueError(f"rows without {name}")
    found: NDArray[Any] = batch[name].to_numpy(zero_copy_only=False)
    return found


def vectors_in(batch: Any, size: int) -> NDArray[Any]:
    """The vectors ``(W, size)`` of some rows, as they are kept."""
    if batch["vector"].null_count:
        raise ValueError("rows without vector")
    found: NDArray[Any] = batch["vector"].flatten().to_numpy(zero_copy_only=False)
    return found.reshape(-1, size)


def listed(numbers: Sequence[int]) -> str:
    """The condition that a row is of one of some videos."""
    return f"number IN ({', '.join(map(str, numbers))})"


def condition_of(where: Filter) -> str:
    """The condition that a filter sets for windows, as `Filter.keeps` has it; empty if none."""
    if not where.of_windows:
        return ""
    at_zero = "" if where.after else " OR start_s = 0.0"
    parts = [f"(end_s > {float(where.after)!r}{at_zero})"]
    if np.isfinite(where.before):
        parts.append(f"(start_s < {float(where.before)!r}{at_zero})")
    if where.shortest:
        parts.append(f"end_s - start_s >= {float(where.shortest)!r}")
    if np.isfinite(where.longest):
        parts.append(f"end_s - start_s <= {float(where.longest)!r}")
    return " AND ".join(parts)


class Inverted(NamedTuple):
    """An inverted file.

    Attributes:
        partitions: How many.
        metric: ``dot``, or ``cosine`` for vectors of one length.
    """

    partitions: int
    metric: Literal["dot", "cosine"]

    @property
    def name(self) -> str:
        """The name of the index in the table."""
        return f"ivf_{self.metric}_{self.partitions}"


class Needs(NamedTuple):
    """Work that keeps a table fast: merging small files, taking in new windows, an inverted file of some partitions."""

    merged: bool
    taken_in: bool
    partitions: int


def needs_of(table: Any) -> Needs:
    """The work that a table needs now."""
    rows = table.count_rows()
    small = table.stats()["fragment_stats"]["num_small_fragments"]
    inverted = inverted_of(table)
    # half the root: to put a window into its partition costs a product with the centre of each
    fit = round(float(np.sqrt(rows)) / 2) if rows >= INDEXED_FROM else 0
    outside = table.index_stats(inverted.name).num_unindexed_rows if inverted is not None else 0
    return Needs(
        small > MOST_SMALL,
        outside > max(INDEXED_FROM, rows // 4),
        fit if fit >= 2 * (inverted.partitions if inverted is not None else 1) else 0,
    )


def inverted_of(table: Any) -> Inverted | None:
    """The inverted file of a table; None: it has none."""
    names = [index.name for index in table.list_indices()]
    found = [match for match in map(_INVERTED.fullmatch, names) if match is not None]
    return max(
        (Inverted(int(one["count"]), "dot" if one["metric"] == "dot" else "cosine") for one in found),
        default=None,
    )


def train(table: Any, partitions: int) -> None:
    """Makes the inverted file of a table anew, and the tree by which its videos are found."""
    from lancedb.index import BTree, IvfSq

    before = inverted_of(table)
    # vectors of one length are in the same order by both, and float16 is multiplied far faster for the cosine
    made = Inverted(partitions, "cosine" if _of_one_length(table) else "dot")
    kind = IvfSq(
        distance_type=made.metric, num_partitions=partitions, max_iterations=_ROUNDS, sample_rate=_TRAINED_BY
    )
    table.create_index("number", config=BTree(), replace=True)
    table.create_index("vector", config=kind, name=made.name)
    if before is not None and before != made:
        table.drop_index(before.name)


def _of_one_length(table: Any) -> bool:
    """True if the first vectors of a table have the same length within a hundredth."""
    size = table.schema.field("vector").type.list_size
    lengths = np.concatenate(
        [
            np.linalg.norm(vectors_in(batch, size).astype(np.float32), axis=1)
            for batch in table.search().select(["vector"]).limit(_SAMPLE).to_batches(_SAMPLE)
        ]
    )
    return bool(lengths.min() > 0.99 * lengths.max())
