"""Foreign files: one error whatever comes out of a library, and no memory on a file's word alone."""

import os
import pickle
from typing import Any, Literal, NotRequired, TypedDict

import numpy as np
import pytest

from vmr_common.boundary import FREE, RATIO, boundary, open_regular, require_size
from vmr_common.errors import UserError, one_line, quoted, visible
from vmr_common.schema import conform


class OfNoListError(Exception):
    pass


@pytest.mark.parametrize(
    "error",
    [
        OfNoListError("odd"),
        MemoryError(),
        RecursionError(),
        UnicodeDecodeError("a", b"b", 0, 1, "c"),
        KeyError("k"),
    ],
)
def test_whatever_a_library_raises_is_one_error(error):
    with pytest.raises(UserError, match=r"^a\.h5: not readable"), boundary("a.h5: not readable"):
        raise error


def test_errors_of_ours_and_interruptions_pass_unchanged():
    with pytest.raises(UserError, match=r"^as it was$"), boundary("other"):
        raise UserError("as it was")
    with pytest.raises(KeyboardInterrupt), boundary("other"):
        raise KeyboardInterrupt


def test_a_pickle_is_named(tmp_path):
    (tmp_path / "a.npy").write_bytes(pickle.dumps([1]))
    with pytest.raises(UserError, match="it holds pickled objects"), boundary("a", tmp_path / "a.npy"):
        raise ValueError("cannot read")


def test_declared_sizes_are_held_against_what_is_stored():
    byte, words = np.dtype("u1"), np.dtype("f8")
    assert require_size((FREE,), byte, 0, "a") == FREE
    assert require_size((RATIO, FREE), byte, FREE, "a") == RATIO * FREE
    for shape, stored in [
        ((FREE + 1,), 0),
        ((FREE, 8, RATIO), FREE),
        ((1 << 40, 1 << 40), 1 << 30),
        ((-1,), 5),
    ]:
        with pytest.raises(UserError, match=r"^a declares"):
            require_size(shape, words, stored, "a")
    with pytest.raises(UserError, match="declares the shape"):
        require_size((True, 16), words, 5, "a")


def test_only_a_regular_file_is_opened_and_nothing_is_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path):
        with pytest.raises(UserError, match="expected a regular file"):
            open_regular(path)


class Row(TypedDict):
    name: str
    share: float
    kind: Literal["a", "b"]
    more: NotRequired[dict[str, list[int]] | None]
    pair: NotRequired[tuple[str, int]]


GOOD: dict[str, Any] = {"name": "n", "share": 1, "kind": "a", "more": {"x": [1]}, "pair": ["p", 2]}


def test_a_value_of_the_stated_type_comes_back_as_it_is():
    assert conform(GOOD, Row, "f") is GOOD
    assert conform({**GOOD, "more": None}, Row, "f")["more"] is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": None}, "f: key name: found None, expected text"),
        ({"share": True}, "f: key share: found True, expected a finite number"),
        ({"share": float("nan")}, "f: key share: found nan, expected a finite number"),
        ({"share": 10**400}, "f: key share: found 1000"),
        ({"kind": "c"}, "f: key kind: found 'c', expected one of 'a', 'b'"),
        ({"more": {"x": [1, "2"]}}, r"f: key more.x\[1\]: found '2', expected a whole number"),
        ({"more": []}, "f: key more: found"),
        ({"pair": ["p"]}, "f: key pair: found"),
        ({"pair": ["p", 1.5]}, r"f: key pair\[1\]: found 1.5, expected a whole number"),
        ({"other": 1}, "f: unknown key 'other', expected name, share, kind, more, pair"),
    ],
)
def test_a_value_of_another_type_is_named_with_its_key(change, message):
    with pytest.raises(UserError, match=message):
        conform({**GOOD, **change}, Row, "f")


def test_a_missing_key_and_another_outer_type_are_named():
    with pytest.raises(UserError, match=r"f: key 'share' is missing \(found: name"):
        conform({"name": "n"}, Row, "f")
    with pytest.raises(UserError, match="f: found 5, expected an object"):
        conform(5, Row, "f")


class Postponed(TypedDict):
    name: "str"
    more: "NotRequired[int]"


def test_a_key_that_is_not_required_may_be_missing_where_annotations_are_postponed():
    assert conform({"name": "n"}, Postponed, "f") == {"name": "n"}
    with pytest.raises(UserError, match="key 'name' is missing"):
        conform({"more": 1}, Postponed, "f")
    with pytest.raises(UserError, match="key more: found '1', expected a whole number"):
        conform({"name": "n", "more": "1"}, Postponed, "f")


def test_control_characters_are_shown_and_never_sent():
    hostile = "\x1b]0;title\x07 \x9b2J \u202e \ud800 \x7f"
    assert not any(letter in visible(hostile) for letter in "\x1b\x07\x9b\u202e\ud800\x7f")
    assert "\x1b" not in quoted(hostile)
    assert visible("a\tb\nc \u00e9 \u4e2d") == "a\tb\nc \u00e9 \u4e2d"


def test_a_message_is_one_line_and_quotes_no_more_than_two_hundred_characters():
    text = one_line(f"a.json:\n  key '{'x y' * 500}' and {'9' * 5000} in /a/{'b' * 150}/{'c' * 150}")
    assert "\n" not in text
    assert len(text) < 900
    assert f"/a/{'b' * 150}/{'c' * 150}" in text  # paths stay whole
