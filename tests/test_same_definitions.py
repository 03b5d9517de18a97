"""Definitions that two papers carry are the same: marked ``# Same as module.name`` in the copy, and compared here."""

import ast
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from folders import MODELS, ROOT

MARK = re.compile(r"^\s*#\s*Same as\s*(.*?)\s*$", re.IGNORECASE)


class Mark(NamedTuple):
    path: Path
    line: int
    named: str


def marks(path: Path) -> list[Mark]:
    lines = enumerate(path.read_text().splitlines(), 1)
    return [Mark(path, number, found[1]) for number, line in lines if (found := MARK.match(line))]


def definitions(path: Path) -> Iterator[tuple[int, str, ast.stmt]]:
    """First line, decorators included, name and node of what a module defines at its top."""
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            yield min([node.lineno, *(one.lineno for one in node.decorator_list)]), node.name, node
        elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            yield node.lineno, node.targets[0].id, node


def module_file(packages: Path, module: str) -> Path:
    name = module.split(".")[0]
    file = packages / name.replace("_", "-") / "src" / Path(*module.split("."))
    return file.with_suffix(".py") if file.with_suffix(".py").is_file() else file / "__init__.py"


def problem(mark: Mark, packages: Path) -> str | None:
    """None where the definition below a mark is that which it names; else what is wrong."""
    where = f"{mark.path}:{mark.line}: Same as {mark.named}"
    module, _, name = mark.named.rpartition(".")
    file = module_file(packages, module)
    named = [node for _, found, node in definitions(file) if found == name] if file.is_file() else []
    if not named:
        return f"{where}: there is no such definition"
    if file == mark.path:
        return f"{where}: the mark names its own module"
    copies = [node for line, _, node in definitions(mark.path) if line == mark.line + 1]
    if not copies:
        return f"{where}: no definition follows on the next line"
    if ast.unparse(copies[0]) != ast.unparse(named[-1]):
        return f"{where}: the definitions differ"
    return None


def marked(packages: Path) -> list[Mark]:
    return [mark for path in sorted(packages.glob("*/src/**/*.py")) for mark in marks(path)]


ALL = marked(ROOT / "packages")


@pytest.mark.parametrize("mark", ALL, ids=[f"{mark.path.parent.name}-{mark.named}" for mark in ALL])
def test_a_marked_definition_is_the_one_that_it_names(mark):
    assert problem(mark, ROOT / "packages") is None


def test_the_papers_that_share_layers_have_marks():
    assert {mark.path.relative_to(ROOT / "packages").parts[0] for mark in ALL} >= {"cfmr", "leorn"}


def unmarked(packages: Path, papers: Iterable[str]) -> list[str]:
    """Names of equal definitions in two papers, of more than a few lines, of which no one is marked as the copy."""
    found: dict[str, dict[str, str]] = {}
    for paper in papers:
        for path in sorted((packages / paper / "src").rglob("*.py")):
            below = {mark.line + 1 for mark in marks(path)}
            for line, name, node in definitions(path):
                text = ast.unparse(node)
                if line not in below and text.count("\n") >= 10:
                    found.setdefault(text, {})[paper] = name
    return [name for places in found.values() if len(places) > 1 for name in set(places.values())]


def test_what_two_papers_carry_alike_is_marked():
    assert unmarked(ROOT / "packages", MODELS) == []


def test_an_equal_definition_without_a_mark_is_found(tmp_path):
    text = "def pool(x):\n" + "".join(f"    x = x + {n}\n" for n in range(12)) + "    return x\n"
    for package in ("one", "two"):
        file = tmp_path / package / "src" / package / "layers.py"
        file.parent.mkdir(parents=True)
        file.write_text(text)
    assert unmarked(tmp_path, ("one", "two")) == ["pool"]
    file.write_text(f"# Same as one.layers.pool\n{text}")
    assert unmarked(tmp_path, ("one", "two")) == []


ORIGINAL = '''
import functools

@functools.cache
def pool(x):
    """The maximum."""
    return max(x)  # of all
'''
COPY = ORIGINAL.replace("@", "# Same as one.layers.pool\n@").replace("  # of all", "")


@pytest.mark.parametrize(
    ("copy", "wrong"),
    [
        (COPY, None),
        (COPY.replace("max(x)", "min(x)"), "differ"),
        (COPY.replace("The maximum", "The minimum"), "differ"),
        (COPY.replace("layers.pool", "layers.gone"), "no such definition"),
        (COPY.replace("one.layers", "one.gone"), "no such definition"),
        (COPY.replace("one.layers.pool", "pool"), "no such definition"),
        (COPY.replace("pool\n@", "pool\n\n@"), "no definition follows"),
        (COPY.replace("one.layers.pool", "two.layers.pool"), "its own module"),
        (COPY.replace("one.layers.pool", ""), "no such definition"),
    ],
)
def test_a_copy_that_differs_and_a_mark_that_names_nothing_are_found(tmp_path, copy, wrong):
    for package, text in (("one", ORIGINAL), ("two", copy)):
        file = tmp_path / package / "src" / package / "layers.py"
        file.parent.mkdir(parents=True)
        file.write_text(text)
    (mark,) = marked(tmp_path)
    found = problem(mark, tmp_path)
    assert found is None if wrong is None else wrong in found
