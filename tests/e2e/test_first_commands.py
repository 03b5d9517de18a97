"""The two commands that the README begins with do what it says.

The first takes minutes, so here it trains a narrower model for one epoch, on the whole of the embedded data set; as it
stands in the README it runs with the slow tests. The second is the run of all tests itself: `.ci/run` types it.
"""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from folders import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
SHORT = (
    "--train.epochs 1 --train.global_batch 128 --train.eval_batch 256 --model.hidden 16 --model.heads 2 "
    "--model.video_layers 1 --model.text_layers 1 --model.candidates 2"
)


def commands() -> list[list[str]]:
    """What the first block of the README types."""
    block = re.search(r"^```\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    assert block is not None
    return [shlex.split(line, comments=True) for line in block[1].strip().splitlines()]


def typed(words: list[str], folder: Path) -> str:
    """The output of a command line of the workspace."""
    program = Path(sys.executable).with_name(words[0])
    done = subprocess.run([program, *words[1:]], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{shlex.join(words)}\n{done.stderr}"
    return done.stdout


def check_first_command(folder: Path, more: list[str]) -> None:
    """Types the first command, looks for what the README promises, and types what it says to try next."""
    _, _, *train = commands()[0]
    shown = typed([*train, *more], folder)
    table, _, ending = shown.partition("\n\nreport")
    rows = [line.split()[0] for line in table.splitlines() if line and not line.startswith(("protocol", "%"))]
    assert rows[:3] == ["rgn", "chance", "bias"]
    report = re.search(r"`(runs/[\w/-]+/report\.html)`", README)
    assert report is not None
    assert report[1] in ending
    assert "<html" in (folder / report[1]).read_text(encoding="utf-8")[:500]
    following = [shlex.split(line.removeprefix("next")) for line in ending.splitlines()[1:] if line.strip()]
    assert [words[0] for words in following] == ["rgn-eval", "rgn-predict"]
    repeated, found = (typed(words, folder) for words in following)
    assert repeated.strip() == table.strip()
    assert re.search(r"^ +1 +\d", found, re.MULTILINE)


def test_the_readme_begins_with_the_two_commands_that_are_tested():
    assert commands() == [["uv", "run", "rgn-train"], ["uv", "run", "pytest"]]
    assert "step uv run pytest\n" in (ROOT / ".ci/run").read_text()


def test_the_first_command_in_short(tmp_path):
    check_first_command(tmp_path, shlex.split(SHORT))


@pytest.mark.slow
def test_the_first_command_as_it_stands(tmp_path):
    check_first_command(tmp_path, [])
