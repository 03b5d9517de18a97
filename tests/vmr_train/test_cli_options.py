"""The first word of a paper's command chooses what runs."""

import pytest

from vmr_common.cli.entrypoint import Parser, command, echo
from vmr_common.errors import UserError
from vmr_train.cli.options import dispatch


@command
def greet(argv):
    parser = Parser(prog="greet")
    parser.add_argument("--whom", required=True)
    echo(f"hello {parser.parse_args(argv).whom}", "bye")


@command
def fail(argv):
    raise UserError("no,\n  never")


COMMANDS = {"greet": greet, "fail": fail}


def test_the_first_word_chooses_the_command(capsys):
    assert dispatch("python -m x", COMMANDS, ["greet", "--whom", "you"]) == 0
    assert capsys.readouterr() == ("hello you\nbye\n", "")
    assert dispatch("python -m x", COMMANDS, ["fail"]) == 2
    assert capsys.readouterr() == ("", "error: no, never\n")


@pytest.mark.parametrize("argv", [[], ["nothing"]])
def test_a_word_that_is_no_command_shows_the_usage(argv, capsys):
    assert dispatch("python -m x", COMMANDS, argv) == 2
    assert capsys.readouterr() == ("", "usage: python -m x {greet,fail} ...\n")


@pytest.mark.parametrize("word", ["-h", "--help"])
def test_help_is_printed_and_no_mistake(word, capsys):
    assert dispatch("python -m x", COMMANDS, [word]) == 0
    assert capsys.readouterr() == ("usage: python -m x {greet,fail} ...\n", "")
