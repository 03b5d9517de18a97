"""How commands are named, read their options, speak and end."""

import pytest

from vmr_common.cli.run import Parser, command, dispatch, say
from vmr_common.errors import UserError


@command
def greet(argv):
    parser = Parser(prog="greet")
    parser.add_argument("--whom", required=True)
    say(f"hello {parser.parse_args(argv).whom}", "bye")


@command
def fail(argv):
    raise UserError("no,\n  never")


COMMANDS = {"greet": greet, "fail": fail}


def test_the_first_word_chooses_the_command(capsys):
    assert dispatch("python -m x", COMMANDS, ["greet", "--whom", "you"]) == 0
    assert capsys.readouterr() == ("hello you\nbye\n", "")
    assert dispatch("python -m x", COMMANDS, ["fail"]) == 2
    assert capsys.readouterr() == ("", "error: no, never\n")


@pytest.mark.parametrize("argv", [[], ["nothing"], ["--help"]])
def test_a_word_that_is_no_command_shows_the_usage(argv, capsys):
    assert dispatch("python -m x", COMMANDS, argv) == 2
    assert capsys.readouterr() == ("", "usage: python -m x {greet,fail} ...\n")


@pytest.mark.parametrize("argv", [[], ["--whom"], ["--who", "you"], ["--whom", "you", "more"]])
def test_a_wrong_option_is_one_line_that_names_the_help(argv, capsys):
    assert greet(argv) == 2
    out, line = capsys.readouterr()
    assert out == ""
    assert line.startswith("error: ")
    assert line.endswith(" (see greet --help)\n")
    assert line.count("\n") == 1
