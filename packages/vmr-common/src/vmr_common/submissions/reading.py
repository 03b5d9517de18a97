"""Reads predictions of any known layout, and those in arrays."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vmr_common.errors import UserError
from vmr_common.records import Prediction, Query, predictions_of, rank_scores
from vmr_common.submissions.ego4d import entries_of
from vmr_common.text_input import opened

_WINDOW_ARRAYS = {"moments": 1.0, "pred": 1.0, "pred_cs": 100.0, "pred_e4": 10000.0}
_SCORE_ARRAYS = {"scores": 1.0, "score_e4": 10000.0}


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
    ``(N, K)``; optionally ``ids`` ``(N,)`` text. Without ids, row n belongs to query n of the split.

    Raises:
        UserError: if the archive cannot be read (pickled arrays are refused), an array is missing or of
            another shape, a time is not finite, or there are neither ids nor as many queries as rows.
    """
    try:
        # opened here, because numpy leaves a damaged archive open
        with Path(path).open("rb") as file, np.load(file, allow_pickle=False) as archive:
            arrays = {key: archive[key] for key in archive.files}
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except Exception as error:  # a damaged archive raises whatever its damaged part runs into
        # zipfile quotes the damaged bytes
        raise UserError(f"{path}: not a readable .npz archive ({str(error)[:120]})") from None
    moments = _scaled(arrays, _WINDOW_ARRAYS, path)
    if moments is None:
        found = ", ".join(arrays) or "nothing"
        raise UserError(f"{path}: no windows; expected one of {', '.join(_WINDOW_ARRAYS)}, found {found}")
    if moments.ndim != 3 or moments.shape[2] != 2 or not np.isfinite(moments).all():
        raise UserError(f"{path}: windows must be finite and of shape (N, K, 2), found {moments.shape}")
    scores = _scaled(arrays, _SCORE_ARRAYS, path)
    if scores is None:
        scores = np.broadcast_to(rank_scores(moments.shape[1]), moments.shape[:2])
    if scores.shape != moments.shape[:2]:
        raise UserError(f"{path}: scores must have shape {moments.shape[:2]}, found {scores.shape}")
    ids, videos = _row_ids(path, arrays, len(moments), queries)
    return [
        Prediction(query=name, video=video, moments=windows, scores=values)
        for name, video, windows, values in zip(ids, videos, moments, scores, strict=True)
    ]


def _scaled(
    arrays: dict[str, NDArray[Any]], known: dict[str, float], path: str | Path
) -> NDArray[np.float64] | None:
    for key, unit in known.items():
        if key in arrays:
            try:
                return np.asarray(arrays[key].astype(np.float64) / unit)
            except (TypeError, ValueError):
                raise UserError(f"{path}: array {key} does not hold numbers ({arrays[key].dtype})") from None
    return None


def _row_ids(
    path: str | Path, arrays: dict[str, NDArray[Any]], rows: int, queries: Sequence[Query] | None
) -> tuple[list[str], list[str]]:
    if "ids" in arrays:
        ids = [str(value) for value in arrays["ids"].reshape(-1)]
        if len(ids) != rows:
            raise UserError(f"{path}: {len(ids)} ids for {rows} rows of windows")
        return ids, [""] * rows
    if queries is None or len(queries) != rows:
        found = "unknown" if queries is None else len(queries)
        raise UserError(f"{path}: {rows} rows without array ids, but the number of queries is {found}")
    return [query.id for query in queries], [query.video for query in queries]
