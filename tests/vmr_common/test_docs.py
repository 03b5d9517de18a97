"""What docs/data.md tells a newcomer to type works as it is written there."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from folders import ROOT

pytestmark = pytest.mark.e2e

PAGE = (ROOT / "docs/data.md").read_text(encoding="utf-8")
SECTION = PAGE.split("## Bring your own data\n", 1)[1].split("\n## ", 1)[0]


def blocks(language):
    found = re.findall(r"^```(\w*)\n(.*?)^```$", SECTION, re.MULTILINE | re.DOTALL)
    return [text for name, text in found if name == language]


def typed(line, folder):
    program, *arguments = shlex.split(line)
    program = sys.executable if program == "python" else str(Path(sys.executable).with_name(program))
    done = subprocess.run([program, *arguments], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture
def folder(tmp_path):
    (program,) = blocks("python")
    assert len(program.strip().splitlines()) <= 20
    (tmp_path / "make_mine.py").write_text(program)
    return tmp_path


def test_ten_videos_of_ones_own_are_described_checked_and_converted(folder):
    first, *_ = blocks("")
    shown = "".join(typed(line, folder) for line in first.strip().splitlines())
    assert "mine/features: 10 videos, 32 columns, 60 rows" in shown
    assert re.search(r"^train\.jsonl +8 +8 +60\.0", shown, re.MULTILINE)
    assert "8 videos, all well" in shown
    assert "features.h5: 10 videos written as float32" in shown


@pytest.mark.slow
def test_ten_videos_of_ones_own_train_a_model(folder):
    first, second = blocks("")
    (folder / "mine.yaml").write_text(blocks("yaml")[0])
    shown = "".join(typed(line, folder) for block in (first, second) for line in block.strip().splitlines())
    assert "split test.jsonl, 2 queries, 0 without prediction" in shown
