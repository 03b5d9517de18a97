"""Names that files give to the fields of a record: query, video, duration, moments and the rest."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from vmr_common.errors import UserError, quoted, some_of
from vmr_common.values import shown

Names = Mapping[str, tuple[str, ...]]
"""The keys of a record by field; several hold the same thing."""

NAMES: Names = {
    "id": ("query_id", "qid", "annotation_id", "desc_id", "question_id", "sample_id"),
    "query": (
        *("query", "sentence", "caption", "description", "desc", "text", "question"),
        *("queries", "sentences", "captions"),
    ),
    "video": ("video_id", "vid", "video", "vid_name", "video_name", "video_uid", "clip_uid"),
    "duration": (
        "duration",
        "video_duration",
        "v_duration",
        "vid_duration",
        "movie_duration",
        "video_length",
    ),
    "moments": (
        *("windows", "relevant_windows", "timestamps", "timestamp", "ts", "moments", "moment"),
        *("segments", "segment", "spans", "span"),
    ),
    "start": ("start", "start_time", "start_sec", "start_s", "clip_start_sec", "begin"),
    "end": ("end", "end_time", "end_sec", "end_s", "clip_end_sec", "finish"),
    "point": ("point", "glance"),
    "clips": ("relevant_clip_ids",),
    "scores": ("saliency_scores",),
    "labels": ("label",),
    "subset": ("subset", "split"),
}
"""Known names of each field, the usual ones first."""
_ONLY_ALONE = {"id": ("id",), "video": ("clip_id", "movie"), "duration": ("length", "clip_duration")}
"""Names that count only where a record has no other of that field."""
_JUDGED = 100  # keys of a record that are compared with the names that are looked for
_NEEDED = {"query": 99, "video": 99, "duration": 99, "moments": 4, "start": 1, "end": 1, "id": 2, "point": 2}
"""Fields whose names may be misspelt, and how many of their names other keys are compared with."""


def parse_fields(given: Sequence[str] | None) -> dict[str, str] | None:
    """The map of `find_names` from words ``field=column``; None for none.

    Raises `UserError` for a word of another form, or as `require_fields`.
    """
    if not given:
        return None
    pairs = [word.partition("=") for word in given]
    for word, (field, sign, column) in zip(given, pairs, strict=True):
        if not (field and sign and column):
            raise UserError(f"--fields {quoted(word)}: expected field=column, such as query=caption")
    fields = {field: column for field, _, column in pairs}
    if len(fields) < len(pairs):
        raise UserError("--fields: a field is there twice")
    require_fields(fields)
    return fields


def require_fields(fields: Collection[str]) -> None:
    """Raises `UserError` for fields that no record has; names all there are."""
    if unknown := [field for field in fields if field not in NAMES]:
        raise UserError(
            f"fields: {some_of(map(quoted, unknown))} is no field of a record, expected {', '.join(NAMES)}"
        )


def is_record(row: Mapping[str, object], given: Mapping[str, str] | None = None) -> bool:
    """True for an object that is one record: it names its video, or has an id of its own."""
    own = {name for field in ("id", "video") for name in (*NAMES[field], *_ONLY_ALONE.get(field, ()))}
    values = (row[key] for key in (*own, *(given or {}).values()) if key in row)
    return any(value is None or isinstance(value, str | int) for value in values)


def known_names() -> set[str]:
    """All names of fields."""
    return {name for table in (NAMES, _ONLY_ALONE) for names in table.values() for name in names}


def records_of(document: Any, given: Mapping[str, str] | None = None) -> list[Any] | None:
    """The records of a JSON document, or None where it holds none.

    They are a list of objects; one object; an object that has one such list; one that has the records by id, or by
    video; or columns, each a list or an object of rows, as pandas writes them.
    """
    if isinstance(document, list):
        return document if all(isinstance(row, dict) for row in document[:1]) else None
    if not isinstance(document, dict):
        return None
    if is_record(document, given):
        return [document]
    lists = [value for value in document.values() if isinstance(value, list) and value]
    inside = lists[0][0] if len(lists) == 1 else None
    if isinstance(inside, dict) and is_record(inside, given):
        return lists[0]
    return _by_key(document, given) or _columns(document, given)


def _by_key(document: dict[str, Any], given: Mapping[str, str] | None) -> list[Any] | None:
    given = given or {}
    first = next(iter(document.values()), None)
    if not isinstance(first, dict):
        return None
    if is_record(first) or given.get("video") in first:
        own = "id" if "id" in given or not {*NAMES["id"], "id"}.isdisjoint(first) else "query_id"
    elif not first.keys().isdisjoint((*_names("duration", given), *_names("moments", given))) and any(
        isinstance(first.get(name), str) for name in _names("query", given)
    ):
        own = "video_id"
    else:
        return None
    return [{own: key, **row} if isinstance(row, dict) else row for key, row in document.items()]


def _columns(document: dict[str, Any], given: Mapping[str, str] | None) -> list[Any] | None:
    names, rows = document.get("columns"), document.get("data")
    if isinstance(names, list) and isinstance(rows, list):  # the orient "split" of pandas
        columns = [name for name in names if isinstance(name, str)]
        fit = len(columns) == len(names) and all(
            isinstance(row, list) and len(row) == len(names) for row in rows
        )
        return [dict(zip(columns, row, strict=True)) for row in rows] if fit else None
    if document.keys().isdisjoint(_names("query", given or {})):
        return None
    first, *others = document.values()
    if isinstance(first, dict) and all(
        isinstance(one, dict) and one.keys() == first.keys() for one in others
    ):
        return [{name: column[key] for name, column in document.items()} for key in first]
    if isinstance(first, list) and all(isinstance(one, list) and len(one) == len(first) for one in others):
        return [dict(zip(document, row, strict=True)) for row in zip(*document.values(), strict=True)]
    return None


def _names(field: str, given: Mapping[str, str]) -> tuple[str, ...]:
    return (given[field],) if field in given else NAMES[field]


def find_names(keys: Sequence[str], where: str, given: Mapping[str, str] | None = None) -> Names:
    """The keys of a record by field, from its keys; `given` are keys by field that go before the known names.

    Example:
        >>> find_names(["vid", "caption", "duration", "ts"], "mine.jsonl:1")["query"]
        ('caption',)

    Raises:
        UserError: if a given key is not there, query or video have none, of start and end only one is there, or a key
            looks like a misspelt name.
    """
    given = given or {}
    if lacking := [f"{key} (for {field})" for field, key in given.items() if key not in keys]:
        raise UserError(f"{where}: fields: {some_of(lacking)} is not there (found: {some_of(keys)})")
    there = set(keys)
    found: dict[str, tuple[str, ...]] = {}
    for field, known in NAMES.items():
        names = (given[field],) if field in given else tuple(name for name in known if name in there)
        if not names:
            names = tuple(name for name in _ONLY_ALONE.get(field, ()) if name in there)[:1]
        if names:
            found[field] = names
    taken = set(given.values())
    for field in found.keys() - given.keys():
        found[field] = tuple(name for name in found[field] if name not in taken)
    found = {field: names for field, names in found.items() if names}
    # CONE's times are those of the clip, which is cut from the video
    if (
        "clip_id" in there
        and "video" not in given
        and found.get("moments", ("timestamps",)) == ("timestamps",)
    ):
        found["video"] = ("clip_id",)
    _refuse_misspelt(keys, found, where)
    if lacking := [field for field in ("query", "video") if field not in found]:
        raise UserError(_missing(lacking, keys, where))
    if lone := {"start", "end"} - found.keys():
        if len(lone) == 1 and "moments" not in found:
            raise UserError(_missing([*lone], keys, where))
        for side in ("start", "end"):
            found.pop(side, None)
    return found


def _missing(fields: Sequence[str], keys: Iterable[str], where: str) -> str:
    names = [NAMES[field] for field in fields]
    lacking = " and ".join(f"key {first!r}" for first, *_ in names)
    expected = " and ".join(f"{first} (or {', '.join(others)})" for first, *others in names)
    return (
        f"{where}: {lacking} {'is' if len(fields) == 1 else 'are'} missing (found: {some_of(keys)}), expected "
        f"{expected}; --fields {' '.join(f'{field}=NAME' for field in fields)} reads another name "
        "(vmr-data, vmr-score and eval take it; in a configuration: fields of the split)"
    )


def no_duration(keys: Iterable[str], where: str) -> UserError:
    """The error for a record without a duration."""
    return UserError(f"{_missing(['duration'], keys, where)}, --durations FILE gives durations by video")


def _refuse_misspelt(keys: Sequence[str], found: Names, where: str) -> None:
    used = {name for names in found.values() for name in names}
    others = [key for key in keys if key not in used][:_JUDGED]
    if any(key.startswith("pred_") for key in others) and "moments" not in found:
        raise UserError(f"{where}: holds predictions (found: {some_of(keys)}), expected annotations")
    for field, count in _NEEDED.items():
        if field in found or (field in ("start", "end", "moments") and {"moments", "start"} & found.keys()):
            continue
        for name in NAMES[field][:count]:
            if near := difflib.get_close_matches(name, others, 1, cutoff=0.8):
                raise UserError(
                    f"{where}: unknown key {shown(near[0])} (did you mean {name!r}?); "
                    f"--fields {field}={shown(near[0])[1:-1]} reads it"
                )
    for field in ("clips", "scores"):
        for name in () if field in found else NAMES[field]:
            if near := difflib.get_close_matches(name, others, 1, cutoff=0.8):
                raise UserError(f"{where}: unknown key {shown(near[0])} (did you mean {name!r}?)")
