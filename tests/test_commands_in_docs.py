"""Every command line that the documentation shows is understood by the parser of its command."""

import argparse
import functools
import importlib
import pkgutil
import re
import shlex
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from folders import MODELS, PAGES, ROOT
from vmr_train.checkpoint import save_checkpoint
from vmr_train.cli import options
from vmr_train.cli.config import bundled_config, to_dict
from vmr_video.cli import video

OURS = {
    name: target
    for path in ROOT.glob("packages/*/pyproject.toml")
    for name, target in tomllib.loads(path.read_text())["project"].get("scripts", {}).items()
}
# not ours to parse
OTHERS = {"pip", "uv", "source", "python", "mkdocs", "pytest", "pre-commit", "ruff", "cat", ".ci/run"}
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


EARLIER = re.compile(r"^\| 0\.1 \|.*\n(?:\|.*\n)+", re.MULTILINE)


def without_first_cells(table: re.Match[str]) -> str:
    return re.sub(r"^\|[^|]*", "", table[0], flags=re.MULTILINE)


def block_lines(text: str) -> Iterator[str]:
    """What is typed in the blocks that name no language: without output, comments and line breaks."""
    for language, block in BLOCK.findall(text):
        if language not in ("", "bash", "console"):
            continue
        lines = block.replace("\\\n", " ").splitlines()
        typed = [line.removeprefix("$ ") for line in lines if line.startswith("$ ")] or lines
        typed = [line for line in typed if shlex.split(line, comments=True)]
        if typed and typed[0].split()[0] in {
            *OURS,
            *OTHERS,
            "uv",
            "torchrun",
        }:  # others show output, or a drawing
            yield from typed


def inline_lines(text: str) -> Iterator[str]:
    """Commands with options in the running text, but for those of an earlier version, the first column of a table."""
    for span in re.findall(r"`([^`\n]+)`", EARLIER.sub(without_first_cells, BLOCK.sub("", text))):
        if span.split()[0] in OURS and " -" in span:
            yield span


def words_of(line: str) -> list[str]:
    """The arguments of a line, optional ones without their brackets, placeholders for more left out."""
    words = [word for word in shlex.split(line, comments=True) if word != "..."]
    return [word.removeprefix("[").removesuffix("]") if "[-" in line else word for word in words]


def command_of(words: list[str]) -> tuple[Callable[[list[str]], int] | None, list[str]]:
    """The function behind a command line and its arguments; None for a program of others."""
    if words[:2] == ["uv", "run"]:
        return command_of(words[4:] if words[2] == "--only-group" else words[2:])
    if words[0] == "torchrun":
        inner = words.index("--no-python") + 1 if "--no-python" in words else words.index("-m")
        return command_of(["python", *words[inner:]] if words[inner] == "-m" else words[inner:])
    if words[:2] == ["python", "-m"]:
        module = importlib.import_module(f"{words[2]}.__main__")
        return module.COMMANDS[words[3]], words[4:]
    if words[0] in OTHERS:
        return None, []
    assert words[0] in OURS, f"no such command: {words[0]}"
    return pkgutil.resolve_name(OURS[words[0]]), words[1:]


class Understood(BaseException):
    """A parser has accepted its arguments; what the command would do comes no more."""


@pytest.fixture
def parsers_only(monkeypatch):
    """Every command ends when its arguments are parsed."""

    def stop_after(function):
        @functools.wraps(function)
        def understood(*args, **kwargs):
            found = function(*args, **kwargs)
            if hasattr(found, "cfg"):  # the configuration is still to be read
                return found
            raise Understood

        return understood

    for name in ("parse_args", "parse_intermixed_args"):
        monkeypatch.setattr(argparse.ArgumentParser, name, stop_after(getattr(argparse.ArgumentParser, name)))
    for module in (options, video):
        monkeypatch.setattr(module, "parse", stop_after(module.parse))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Run folders under the names that the pages use, so that a command finds the configuration of its checkpoint."""
    folder = tmp_path_factory.mktemp("docs")
    for name in MODELS:
        schema = importlib.import_module(f"{name}.config").Config
        config = bundled_config(name, schema, schema.name)
        meta = dict.fromkeys(("update", "epoch", "batch"), 0) | {"package": name, "role": "best", "state": {}}
        path = folder / "runs" / name / config.name / "checkpoints/best.safetensors"
        path.parent.mkdir(parents=True)
        save_checkpoint(path, {}, {**meta, "describe": {"config": to_dict(config)}})
    return folder


def with_files(page: Path, words: list[str], folder: Path) -> list[str]:
    """The arguments with a checkpoint that exists, and the page's own YAML where they name it."""
    found = list(words)
    for place, word in enumerate(words[:-1]):
        value = words[place + 1]
        if word == "--checkpoint" and not (folder / value).exists():
            known = (name for name in MODELS if re.match(rf"(.* )?{name}[-. ]", " ".join(words)))
            package = next(known, None) or value.split("/")[1]  # runs/cfmr/mine
            (found[place + 1],) = (str(path) for path in (folder / "runs" / package).iterdir())
        if word == "--cfg" and value.endswith(".yaml"):
            blocks = [block for language, block in BLOCK.findall(page.read_text()) if language == "yaml"]
            (folder / value).write_text(
                next(block for block in blocks if f"name: {Path(value).stem}\n" in block)
            )
    return found


def complaint(page: Path, line: str, folder: Path, capsys) -> str:
    """What the parser says against a line; empty where it is understood."""
    words = words_of(line)
    command, arguments = command_of(with_files(page, words, folder))
    if command is None:
        return ""
    try:
        status = command(arguments)
    except Understood:
        return ""
    except SystemExit as ended:
        if ended.code in (0, None):
            return ""
        status = ended.code
    return f"{line}\n  status {status}: {capsys.readouterr().err.strip()}"


def shown(kind) -> list[tuple[Path, str]]:
    return [(page, line) for page in PAGES for line in dict.fromkeys(kind(page.read_text(encoding="utf-8")))]


@pytest.mark.usefixtures("parsers_only")
@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_of_a_page_is_understood(page, folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    text = page.read_text(encoding="utf-8")
    blocks, prose = (
        [said for line in dict.fromkeys(kind(text)) if (said := complaint(page, line, folder, capsys))]
        for kind in (block_lines, inline_lines)
    )
    # prose may leave out what does not matter there
    found = [*blocks, *(said for said in prose if "required" not in said)]
    assert not found, "\n".join(found)


@pytest.mark.usefixtures("parsers_only")
def test_a_wrong_option_would_be_found(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    page = ROOT / "README.md"
    for line in (
        "rgn-train --optim.learning_rate 1",
        "rgn-train --cfg no-such-set",
        "rgn-eval --checkpoint runs/rgn/shapes --nothing",
        "vmr-data info --nothing",
        "cfmr-search index query --nothing",
    ):
        assert "status 2" in complaint(page, line, folder, capsys), line


def test_the_pages_show_every_command():
    text = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    assert [name for name in OURS if name not in text and name.replace("-", " ") not in text] == []
