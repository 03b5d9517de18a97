"""The two commands that the README begins with do what it says.

The first runs as it stands there, to its end, and what it reaches must be what the README's table says, on whatever
machine this is. The second is the run of all tests itself. `.ci/run` types both.
"""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from folders import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
BOTH = ("0.3", "0.5")  # the overlaps of the README's table
DEVIATIONS = 3.5  # from the mean; the least and the greatest of some dozen runs lie within 2.5


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


def stated() -> list[tuple[float, float]]:
    """Mean and deviation of R@1 at both overlaps, as the README's table has them for RGN."""
    cell = re.search(r"^\| `rgn` \|.*?\|.*?\|(.*?)\|", README, re.MULTILINE)
    assert cell is not None
    found = re.findall(r"([\d.]+) ± ([\d.]+) \(", cell[1])
    assert len(found) == len(BOTH), cell[1]
    return [(float(mean), float(deviation)) for mean, deviation in found]


@pytest.mark.slow  # `.ci/run` has a step for it
def test_the_first_command_keeps_the_promises_of_the_readme(tmp_path):
    """Types it, looks for what the README promises, and types what it says to try next."""
    _, _, *train = commands()[0]
    shown = typed(train, tmp_path)
    table, _, ending = shown.partition("\n\nreport")
    rows = [line.split()[0] for line in table.splitlines() if line and not line.startswith(("protocol", "%"))]
    assert rows[:3] == ["rgn", "chance", "bias"]
    figures = {
        row.split()[0]: [float(figure) for figure in row.split()[1:3]] for row in table.splitlines()[2:5]
    }
    for reached, bias, (mean, deviation) in zip(figures["rgn"], figures["bias"], stated(), strict=True):
        assert abs(reached - mean) <= DEVIATIONS * deviation
        assert reached >= 1.5 * bias
    report = re.search(r"`(runs/[\w/-]+/report\.html)`", README)
    assert report is not None
    assert report[1] in ending
    assert "<html" in (tmp_path / report[1]).read_text(encoding="utf-8")[:500]
    following = [shlex.split(line.removeprefix("next")) for line in ending.splitlines()[1:] if line.strip()]
    assert [words[0] for words in following] == ["rgn-eval", "rgn-predict"]
    repeated, found = (typed(words, tmp_path) for words in following)
    assert repeated.strip() == table.strip()
    assert re.search(r"^ +1 +\d", found, re.MULTILINE)


def test_the_readme_begins_with_the_two_commands_that_are_tested():
    assert commands() == [["uv", "run", "rgn-train"], ["uv", "run", "pytest"]]
    steps = (ROOT / ".ci/run").read_text()
    assert "step uv run pytest\n" in steps
    assert "step uv run pytest -n 0 -m slow tests/e2e/test_first_commands.py\n" in steps
