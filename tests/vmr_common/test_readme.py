"""The session and the program in the README of vmr-common give what stands there."""

import contextlib
import io
import re
import shlex
from pathlib import Path

from folders import ROOT
from vmr_common.cli import score

README = (ROOT / "packages/vmr-common/README.md").read_text(encoding="utf-8")


def session() -> list[tuple[list[str], str]]:
    """Every command of the block that shows a session, with the output below it."""
    (block,) = [
        text for text in re.findall(r"^```\n(.*?)^```$", README, re.M | re.S) if text.startswith("$ ")
    ]
    typed = re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]
    return [(shlex.split(text.partition("\n")[0]), text.partition("\n")[2]) for text in typed]


def test_the_session_shows_what_the_command_prints(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    scored = []
    for words, shown in session():
        if words[0] == "cat":
            Path(words[1]).write_text(shown)
        else:
            assert words[0] == "vmr-score"
            status = score.main(words[1:])
            said = capsys.readouterr()
            assert status == 0, said.err
            assert [line.rstrip() for line in said.out.splitlines()] == shown.splitlines()
            scored.append(words)
    assert scored


def test_the_program_prints_what_its_comments_say():
    (program,) = re.findall(r"^```python\n(.*?)^```$", README, re.M | re.S)
    wanted = [comment for line in program.splitlines() for comment in re.findall(r"print\(.*  # (.+)$", line)]
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        exec(compile(program, "README.md", "exec"), {})
    printed = said.getvalue().splitlines()
    assert wanted
    assert printed[: len(wanted)] == wanted
