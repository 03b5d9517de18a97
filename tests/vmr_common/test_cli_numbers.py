"""Numbers on the command line: within what an option states, or one line."""

import argparse

import pytest

from leorn.object_features import cli as object_data
from rgnet import data_cli as query_data
from vmr_common.cli import data, score
from vmr_common.cli.numbers import overlap, real, seconds, several, whole
from vmr_common.errors import UserError
from vmr_train.cli import report

NEVER = ("nan", "inf", "-inf", "1e999", "", " ", "x", "1_0", "٣", "0x1", "True", "1 2", "9" * 5000, "-1e308")


@pytest.mark.parametrize("kind", [whole(0), whole(1), real(0, 1), real(0, 5, above=True), seconds, overlap])
def test_what_is_no_finite_number_is_no_value_of_any_option(kind):
    for text in NEVER:
        with pytest.raises(argparse.ArgumentTypeError, match="expected a") as caught:
            kind(text)
        assert len(str(caught.value)) < 200


@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [
        (whole(1), ("1", "1000000000", "+3"), ("0", "1000000001", "1.0", "1e0")),
        (overlap, ("0", "1", "0.5", "1e-3"), ("-0.1", "1.0001")),
        (real(0, 1, above=True), ("1", "1e-9"), ("0", "-0.0")),
        (seconds, ("1e-6", "1e9", "86400"), ("0", "-3", "1e308", "1e10", "1e-7")),
        (several(whole(1)), ("1", "5,1", "1,1"), ("1,", ",1", "0,5", "1;5")),
    ],
)
def test_a_range_includes_its_bounds_and_nothing_beyond(kind, good, bad):
    for text in good:
        kind(text)
    for text in bad:
        with pytest.raises(argparse.ArgumentTypeError):
            kind(text)


def option_types(parser):
    """The type of every option of a parser and of its subcommands, by name."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for below in action.choices.values():
                yield from option_types(below)
        else:
            yield "/".join(action.option_strings or [action.dest]), action.type


def test_no_option_takes_any_number():
    commands = [module._commands().parser for module in (data, object_data, query_data)]
    parsers = [score._parser(), report._parser(), *commands]
    named = [pair for parser in parsers for pair in option_types(parser)]
    assert len(named) > 60
    assert not [name for name, kind in named if kind in (int, float)]


def test_an_option_outside_its_range_is_one_line(answer):
    status, out, err = answer(score.main, "p", "--annotations", "a", "--nms", "nan\x1b[2J" + "9" * 999)
    assert (status, out) == (2, "")
    assert err.startswith("error: argument --nms: expected a number, at least 0 and at most 1, found 'nan")
    assert "\x1b" not in err
    assert len(err) < 300
    with pytest.raises(UserError):
        data._commands().parser.parse_args(["check", "--features", "f", "--dim", "0"])


@pytest.mark.parametrize(
    ("kind", "text", "message"),
    [
        (whole(1), "0", "expected a whole number, at least 1 and at most 1,000,000,000, found '0'"),
        (real(0, 1, above=True), "nan", "expected a number, above 0 and at most 1, found 'nan'"),
    ],
)
def test_what_is_out_of_range_is_told_the_range(kind, text, message):
    with pytest.raises(argparse.ArgumentTypeError) as caught:
        kind(text)
    assert str(caught.value) == message
