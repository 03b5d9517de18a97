"""Whoever types an example about Shapes looks for something that the video shows."""

import json
import re
from pathlib import Path

import pytest

from folders import PAGES, ROOT
from vmr_shapes.generate import queries
from vmr_shapes.spec import LONG, SHORT

OPTIONS = re.compile(r"""--video (?P<video>[\w-]+) --query ["'](?P<text>[^"']+)["']""")
SEARCH = re.compile(r"""cfmr-search \S+ ["'](?P<text>[^".']+)["'](?: --video (?P<video>[\w-]+))?""")
CALL = re.compile(
    r"""\.(?:predict|explain)\(\s*["'](?P<video>(?:train|val|test)-\d{4})["'],\s*["'](?P<text>[^"']+)["']"""
)


def sources() -> list[Path]:
    """Pages, examples, and the sources with their docstrings and what commands print."""
    found = [
        *PAGES,
        *ROOT.glob("packages/*/src/**/*.py"),
        *ROOT.glob("examples/**/*"),
        *ROOT.glob("docs/**/*.md"),
    ]
    return [
        path for path in dict.fromkeys(found) if path.is_file() and path.suffix in (".md", ".py", ".ipynb")
    ]


def text_of(path: Path) -> str:
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".ipynb":
        return text
    return "\n".join("".join(cell["source"]) for cell in json.loads(text)["cells"])


def examples(path: Path) -> list[tuple[bool, str | None, str]]:
    """Of every example sentence: whether it is about long videos, its video if it names one, the sentence."""
    found = []
    text = text_of(path)
    for pattern in (OPTIONS, SEARCH, CALL):
        for match in pattern.finditer(text):
            line = text[text.rfind("\n", 0, match.start()) + 1 : match.start()]
            is_long = "rgnet" in line or "rgnet" in path.parts or "rgnet" in path.stem
            found.append((is_long, match["video"], match["text"]))
    return found


@pytest.fixture(scope="module")
def shown() -> dict[bool, dict[str, set[str]]]:
    """The sentences that are true of each test video of both Shapes."""
    found: dict[bool, dict[str, set[str]]] = {False: {}, True: {}}
    for is_long, spec in ((False, SHORT), (True, LONG)):
        for query in queries("test", spec):
            found[is_long].setdefault(query.video, set()).add(query.text)
    return found


def test_the_videos_of_examples_show_what_their_sentences_say(shown):
    wrong, seen = [], 0
    for path in sources():
        for is_long, video, text in examples(path):
            if video is not None and not re.fullmatch(r"test-\d{4}", video):
                continue  # not of Shapes
            videos = shown[is_long]
            there = videos.get(video, set()) if video else set().union(*videos.values())
            seen += 1
            if text not in there:
                wrong.append(f"{path.relative_to(ROOT)}: {video or 'no video'}: {text}")
    assert wrong == []
    assert seen >= 10
