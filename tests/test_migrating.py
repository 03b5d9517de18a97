"""Names that the page for users of version 0.1 sends them to are there."""

import pkgutil
import re

import pytest

from folders import MODELS, ROOT
from vmr_train.cli.renamed import RENAMED

PAGE = (ROOT / "docs/migrating.md").read_text(encoding="utf-8")
OURS = rf"`((?:vmr_\w+|{'|'.join(MODELS)})\.[\w.]+)`"


def rows(heading: str) -> list[tuple[str, str]]:
    """The two columns of a section's table."""
    section = PAGE.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("| ")][2:]
    return [tuple(cell.strip() for cell in line.strip("|").split(" | ")) for line in lines]


@pytest.mark.parametrize("new", [new for _, new in rows("Imports")])
def test_a_name_is_where_the_page_says(new):
    names = re.findall(OURS, new)
    assert names
    for name in names:
        pkgutil.resolve_name(name)


def test_every_renamed_key_is_on_the_page():
    said = {old.strip("`"): new.partition(",")[0].strip("`") for old, new in rows("Configurations")}
    assert said == {old: f"{old.rpartition('.')[0]}.{new}" for old, new in RENAMED.items()}
