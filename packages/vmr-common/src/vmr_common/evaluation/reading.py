"""Reads predictions of any known layout, and those in arrays."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vmr_common.errors import UserError, quoted
from vmr_common.evaluation.ego4d_files import entries_of
from vmr_common.features.npz import Archive, shown
from vmr_common.text_input import opened
from vmr_common.types import Prediction, Query, predictions_of, rank_scores
from vmr_common.values import identifier

_WINDOW_ARRAYS = {"moments": 1.0, "pred": 1.0, "pred_cs": 100.0, "pred_e4": 10000.0}
_SCORE_ARRAYS = {"scores": 1.0, "score_e4": 10000.0}
_LENGTHS = "NK"


def read_any(path: str | Path, queries: Sequence[Query] | None = None) -> list[Prediction]:
    """Reads a prediction file of any known layout, recognised by its name and content.

    Args:
        path: ``.npz`` (see `read_npz`), an Ego4D submission, or JSON lines; text may be gzipped (``.gz``).
        queries: Those that the predictions are for. Needed for ``.npz`` without ids; a prediction that names another
            video than its query does is refused.

    Raises:
        UserError: if the file cannot be read or is none of these; names file, line and key.
    """
    if Path(path).suffix == ".npz":
        return read_npz(path, queries)
    with opened(path) as source:
        row = source.first_value() if source.first[:1] == "{" else {}
        if row is None or "results" in row:  # a document of several lines, or of one
            return entries_of(str(path), source.document(), queries or ())
        return predictions_of(str(path), source.rows(), queries or ())


def read_npz(path: str | Path, queries: Sequence[Query] | None = None) -> list[Prediction]:
    """Reads windows from arrays.

    The archive holds ``moments`` (or ``pred``) ``(N, K, 2)`` in seconds, or ``pred_cs`` / ``pred_e4`` in
    hundredths / ten-thousandths of a second, best first; optionally ``scores`` (or ``score_e4``)
    ``(N, K)``; optionally ``ids`` ``(N,)``, text or whole numbers. Without ids, row n belongs to query n of the split.

    Raises:
        UserError: if the archive cannot be read (pickled arrays are refused, and arrays far larger than the file), an
            array is missing, there in two units, of another shape or of another type than whole or floating-point
            numbers, a number is not finite, an id occurs twice, or there are neither ids nor as many queries as rows.
    """
    path = Path(path)
    if not path.exists():
        raise UserError(f"{path}: no such file")
    with Archive(path, str(path), ": not a readable .npz archive") as archive:
        name = _only(archive, _WINDOW_ARRAYS)
        if name is None:
            expected = ", ".join(_WINDOW_ARRAYS)
            raise UserError(f"{path}: no windows; expected one of {expected}, found {shown(archive.names)}")
        moments = _numbers(archive, name, _WINDOW_ARRAYS[name], (None, None, 2))
        name = _only(archive, _SCORE_ARRAYS)
        if name is None:
            scores = np.broadcast_to(rank_scores(moments.shape[1]), moments.shape[:2])
        else:
            scores = _numbers(archive, name, _SCORE_ARRAYS[name], moments.shape[:2])
        ids = _ids(archive, len(moments)) if "ids" in archive else None
    if ids is None:
        if queries is None or len(queries) != len(moments):
            count = "unknown" if queries is None else len(queries)
            raise UserError(
                f"{path}: {len(moments)} rows without array ids, but the number of queries is {count}"
            )
        named = [(query.id, query.video) for query in queries]
    else:
        named = [(name, "") for name in ids]
    return [
        Prediction(query=name, video=video, moments=windows, scores=values)
        for (name, video), windows, values in zip(named, moments, scores, strict=True)
    ]


def _only(archive: Archive, known: Iterable[str]) -> str | None:
    """The first of some names that an archive has, None for none of them."""
    names = [name for name in known if name in archive]
    if len(names) > 1:
        raise UserError(f"{archive.where}: holds both {' and '.join(names)}, expected one of them")
    return names[0] if names else None


def _numbers(archive: Archive, name: str, unit: float, shape: Sequence[int | None]) -> NDArray[np.float64]:
    """An array of finite numbers in float64, divided by its unit; in its shape None stands for any length."""
    found, dtype = archive.layout(name)
    if dtype.kind not in "iuf":
        raise UserError(
            f"{archive.where}: array {name} holds {dtype}, expected whole or floating-point numbers"
        )
    if len(found) != len(shape) or any(
        want not in (None, have) for have, want in zip(found, shape, strict=True)
    ):
        wanted = ", ".join(_LENGTHS[place] if want is None else str(want) for place, want in enumerate(shape))
        raise UserError(f"{archive.where}: array {name} must have shape ({wanted}), found {found}")
    values = archive.read(name).astype(np.float64)
    values /= unit
    if not np.isfinite(values).all():
        row = int(np.argwhere(~np.isfinite(values))[0, 0])
        raise UserError(f"{archive.where}: array {name} holds a number that is not finite in row {row}")
    values.setflags(write=False)
    return values


def _ids(archive: Archive, rows: int) -> list[str]:
    """The query ids, one per row, each once."""
    shape, dtype = archive.layout("ids")
    if dtype.kind not in "iuU":
        raise UserError(f"{archive.where}: array ids holds {dtype}, expected text or whole numbers")
    if shape != (rows,):
        raise UserError(
            f"{archive.where}: array ids must have shape ({rows},), one per row of windows, found {shape}"
        )
    first: dict[str, int] = {}
    for row, value in enumerate(archive.read("ids").tolist()):
        name = identifier(value, archive.where, f"ids[{row}]")
        if first.setdefault(name, row) != row:
            raise UserError(f"{archive.where}: id {quoted(name)} occurs twice (rows {first[name]} and {row})")
    return list(first)
