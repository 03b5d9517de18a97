"""The first word of a paper's command chooses what runs."""

import pytest

from command_toy import fail, greet
from vmr_train.cli.options import dispatch

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
