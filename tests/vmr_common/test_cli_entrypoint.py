"""How commands are named, read their options, speak and end."""

import json
import logging
import shlex

import pytest

from command_toy import greet
from vmr_common.cli.entrypoint import Parser, command, echo, free_text, option_words, word_of
from vmr_common.errors import UserError


@pytest.mark.parametrize("argv", [[], ["--whom"], ["--who", "you"], ["--whom", "you", "more"]])
def test_a_wrong_option_is_one_line_that_names_the_help(argv, capsys):
    assert greet(argv) == 2
    out, line = capsys.readouterr()
    assert out == ""
    assert line.startswith("error: ")
    assert line.endswith(" (see greet --help)\n")
    assert line.count("\n") == 1


def test_what_is_printed_holds_no_control_characters_and_json_keeps_its_meaning(capsys):
    hostile = "\x1b[2J\x9b5n\u202e red"
    assert greet(["--whom", hostile]) == 0
    echo(json.dumps({"text": hostile}, ensure_ascii=False))
    first, _, row = capsys.readouterr().out.splitlines()
    assert first == "hello \\u001b[2J\\u009b5n\\u202e red"
    assert json.loads(row) == {"text": hostile}
    assert not {"\x1b", "\x9b", "\u202e"} & set(row)


def test_lines_of_the_log_hold_no_control_characters(capsys):
    handlers = logging.getLogger().handlers[:]
    logging.getLogger().handlers.clear()
    try:
        command(lambda argv: logging.getLogger("x").warning("no vector for %r and %s", "a", "b\x1b[2J"))([])
    finally:
        logging.getLogger().handlers[:] = handlers
    assert "\x1b" not in capsys.readouterr().err


@pytest.mark.parametrize("value", ["red \udcff", "\udc80"])
def test_an_argument_that_is_no_text_is_refused_before_anything_is_done(value, capsys):
    assert greet(["--whom", value]) == 2
    assert capsys.readouterr() == ("", f"error: the argument {value!a} is not UTF-8 text\n")


def test_an_error_quotes_at_most_two_hundred_characters_of_anything(capsys):
    def deny(argv):
        raise UserError(f"x.json:3: found {'a b' * 9999!r} and {'9' * 9999}")

    assert command(deny)([]) == 2
    assert len(capsys.readouterr().err) < 600


def ids_and_more():
    parser = Parser(prog="find")
    add = parser.add_argument
    add("folder")
    add("query", nargs="?")
    add("--video", nargs="+", type=free_text)
    add("--text", action="append", type=free_text)
    add("-k", type=int)
    add("--json", action="store_true")
    return parser


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("f --text -0awng2 --text --w1 -k 3", {"text": ["-0awng2", "--w1"], "k": 3}),
        ("f --video a -kLzq --w1 -k5 --json", {"video": ["a", "-kLzq", "--w1"], "k": 5, "json": True}),
        ("f --video=--json --text=--help", {"video": ["--json"], "text": ["--help"], "json": False}),
        ("f --text -a=b --json -- -what", {"text": ["-a=b"], "query": "-what"}),
        ("f --video a -- -what", {"video": ["a"], "query": "-what"}),
        ("f --video=-- --text=--", {"video": ["--"], "text": ["--"]}),
        ("f '-what is it' --text '--red a'", {"query": "-what is it", "text": ["--red a"]}),
    ],
)
def test_ids_and_sentences_may_begin_with_a_dash(line, expected):
    found = vars(ids_and_more().parse_intermixed_args(shlex.split(line)))
    assert {key: found[key] for key in expected} == expected


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("f --txt -0awng2", "unrecognized arguments: --txt -0awng2 (see"),
        ("f --text --json", "argument --text: expected one argument"),
        ("f --video -k 5", "argument --video: expected at least one argument"),
        ("f -k--", "argument -k: invalid value '--' (see"),
        ("f --text a --jsn", "unrecognized arguments: --jsn (see"),
        (
            "f -what",
            "unrecognized arguments: -what; a sentence or a file that begins with a dash stands behind --",
        ),
    ],
)
def test_a_misspelt_option_stays_an_error(line, said):
    with pytest.raises(UserError) as error:
        ids_and_more().parse_args(shlex.split(line))
    assert str(error.value).startswith(said)


@pytest.mark.parametrize("value", ["-0awng2", "--json", "a b", "-k5", "it's --"])
def test_options_that_are_printed_are_read_as_they_were(value):
    line = shlex.join([word_of("-runs"), *option_words("--text", value), *option_words("--video", value)])
    found = ids_and_more().parse_args(shlex.split(line))
    assert (found.folder, found.text, found.video) == ("./-runs", [value], [value])
