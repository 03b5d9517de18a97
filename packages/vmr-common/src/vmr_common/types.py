"""The two records that everything speaks in: a query with its ground truth, and a prediction for it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vmr_common.errors import UserError, quoted
from vmr_common.io import write_json_lines
from vmr_common.timeline import LEAST_DURATION, MOST_SECONDS
from vmr_common.values import identifier

# so many digits become an integer under every setting of the interpreter
_WHOLE = re.compile("0|[1-9][0-9]{0,639}")


def as_moments(moments: ArrayLike) -> NDArray[np.float64]:
    """Returns moments as a read-only ``(M, 2)`` float64 array of seconds; an empty list gives ``(0, 2)``.

    An array that is so already, and can no longer be changed, is handed through; of all others a copy is made. Raises
    `ValueError` if the shape is not ``(M, 2)``.

    Example:
        >>> as_moments([[1, 2.5]]).tolist()
        [[1.0, 2.5]]
    """
    array = _fixed(moments)
    if array.shape[1:] != (2,):
        if array.size:
            raise ValueError(f"moments must have shape (M, 2), found {array.shape}")
        array = array.reshape(0, 2)
    return array


def _fixed(values: ArrayLike) -> NDArray[np.float64]:
    """Values as a float64 array that nobody can change."""
    if isinstance(values, np.ndarray) and values.dtype == np.float64 and not values.flags.writeable:
        owner = values if values.base is None else values.base
        if isinstance(owner, np.ndarray) and not owner.flags.writeable:
            return values
    array = np.array(values, dtype=np.float64)
    array.setflags(write=False)
    return array


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class Query:
    """A sentence to localise in one video, with what is known about the answer.

    Attributes:
        id: Unique within its split. Ids are text; a whole number stands for its digits, so 7 and "7" are one id.
        video: Video id, the key in the feature store.
        text: The sentence as annotated.
        duration: Length of the video, seconds, from `LEAST_DURATION` to `MOST_SECONDS`.
        moments: Ground truth ``(M, 2)`` float64, ``[start, end]`` in seconds; may be empty (hidden truth). A start
            after its end is refused.
        glance: Annotated time point inside the moment, seconds, or None.
        saliency: Highlight scores ``(C, A)`` float64, a row per clip of `saliency_clips`, a column per annotator;
            None where there are none.
        saliency_clips: Clip numbers ``(C,)`` int64, or None.
        as_annotated: True allows a start after its end, for readers whose policy keeps records as they are annotated.

    Example:
        >>> query = Query(id="1", video="kitchen", text="she opens the fridge", duration=30.0, moments=[[3, 9.5]])
        >>> query.moments.tolist(), query.glance
        ([[3.0, 9.5]], None)
    """

    id: str
    video: str
    text: str
    duration: float
    moments: NDArray[np.float64] = field(default_factory=lambda: as_moments([]))
    glance: float | None = None
    saliency: NDArray[np.float64] | None = None
    saliency_clips: NDArray[np.int64] | None = None
    as_annotated: bool = False

    def __post_init__(self) -> None:
        _as_texts(self, "id", "video")
        object.__setattr__(self, "moments", as_moments(self.moments))
        for start, end in () if self.as_annotated else self.moments.tolist():
            if not start <= end:
                raise UserError(
                    f"query {quoted(self.id)}: a moment must be [start, end], found [{start:g}, {end:g}]"
                )
        # durations are often counted from the rows of files, so a wrong one is the user's to know
        if not LEAST_DURATION <= self.duration <= MOST_SECONDS:
            raise UserError(
                f"query {quoted(self.id)}: duration must be positive seconds up to {MOST_SECONDS:g}, "
                f"found {self.duration}"
            )


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class Prediction:
    """Ranked moments for one query, best first.

    Attributes:
        query: Id of the query, as `Query.id`.
        video: Video id.
        moments: ``(K, 2)`` float64, ``[start, end]`` in seconds, best first.
        scores: ``(K,)`` float64, higher is better; their scale is the model's own.
        text: The sentence, when known (written to files for the reader's sake).
        saliency: Per-clip highlight scores ``(C,)`` float64, or None.
        evidence: How much speaks for the sentence being in the video at all, on the model's own scale, higher is more;
            None where that is the first of `scores`.
        presence: Probability that it is there, or None where it is not known.

    Example:
        >>> found = Prediction(query="1", video="kitchen", moments=[[3, 9], [12, 20]], scores=[0.9, 0.2])
        >>> found.moments[0].tolist()
        [3.0, 9.0]
    """

    query: str
    video: str
    moments: NDArray[np.float64]
    scores: NDArray[np.float64]
    text: str = ""
    saliency: NDArray[np.float64] | None = None
    evidence: float | None = None
    presence: float | None = None

    def __post_init__(self) -> None:
        _as_texts(self, "query", "video")
        moments, scores = as_moments(self.moments), _fixed(self.scores)
        object.__setattr__(self, "moments", moments)
        object.__setattr__(self, "scores", scores)
        if scores.shape != moments.shape[:1]:
            raise ValueError(
                f"prediction for query {self.query}: {len(moments)} moments but scores of shape {scores.shape}"
            )


def _as_texts(record: Query | Prediction, *names: str) -> None:
    """Makes text of ids that are whole numbers."""
    for name in names:
        value = getattr(record, name)
        if type(value) is not str:
            if isinstance(value, np.integer):
                value = int(value)
            object.__setattr__(record, name, identifier(value, type(record).__name__, name))


def rank_scores(count: int) -> NDArray[np.float64]:
    """Scores ``(count,)`` of moments of which only the order is known: equal steps from 1 down, all above 0.

    Example:
        >>> rank_scores(4).tolist()
        [1.0, 0.75, 0.5, 0.25]
    """
    return np.linspace(1.0, 0.0, count, endpoint=False)


def write_predictions(path: str | Path, predictions: Iterable[Prediction]) -> None:
    """Writes predictions as JSON lines in the QVHighlights convention, atomically.

    One object per line: ``qid`` (an integer where the id is a decimal number), ``query``, ``vid``,
    ``pred_relevant_windows`` (``[[start, end, score], ...]``, seconds, best first) and, where present,
    ``pred_saliency_scores`` and ``presence``. Raises `UserError` if the file cannot be written.

    Example:
        >>> import tempfile
        >>> path = tempfile.mkdtemp() + "/predictions.jsonl"
        >>> write_predictions(path, [Prediction(query="1", video="kitchen", moments=[[3, 9]], scores=[0.9])])
        >>> Path(path).read_text().strip()
        '{"qid": 1, "query": "", "vid": "kitchen", "pred_relevant_windows": [[3.0, 9.0, 0.9]]}'
    """
    write_json_lines(path, map(prediction_row, predictions))


def prediction_row(prediction: Prediction) -> dict[str, Any]:
    """A prediction as one JSON object, see `write_predictions`."""
    windows = np.column_stack([prediction.moments, prediction.scores])
    row: dict[str, Any] = {
        "qid": encode_id(prediction.query),
        "query": prediction.text,
        "vid": prediction.video,
        "pred_relevant_windows": windows.tolist(),
    }
    if prediction.saliency is not None:
        row["pred_saliency_scores"] = prediction.saliency.tolist()
    if prediction.presence is not None:
        row["presence"] = prediction.presence
    return row


def encode_id(name: str) -> str | int:
    """A query id as files hold it: an integer where it is a plain decimal number, else text.

    QVHighlights-style tools compare ids as JSON values, so ``7`` must not come back as ``"7"``.

    Example:
        >>> encode_id("12"), encode_id("012"), encode_id("s30-d52_0")
        (12, '012', 's30-d52_0')
    """
    return int(name) if _WHOLE.fullmatch(name) else name
