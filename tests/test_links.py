"""What the pages link to is there: files, images, headings."""

import re
from pathlib import Path

import pytest

from folders import PAGES, ROOT

CODE = re.compile(r"^```.*?^```$|`[^`\n]+`", re.MULTILINE | re.DOTALL)


def links(page: Path) -> list[str]:
    """Targets of links and images outside of code."""
    return re.findall(r"\]\(([^)\s]+)\)", CODE.sub("", page.read_text(encoding="utf-8")))


def anchors(page: Path) -> set[str]:
    """Headings as the usual renderers name them."""
    titles = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def broken(page: Path) -> list[str]:
    found = []
    for link in links(page):
        if re.match(r"[a-z]+:", link):
            continue  # another host's; nothing is fetched in tests
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        if (
            not target.exists()
            or not target.is_relative_to(ROOT)
            or (anchor and anchor not in anchors(target))
        ):
            found.append(link)
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_of_a_page_leads_somewhere(page):
    assert broken(page) == []


def test_every_page_can_be_reached_from_the_readme():
    seen, waiting = set(), [ROOT / "README.md"]
    while waiting:
        page = waiting.pop()
        if page not in seen and page.suffix == ".md" and page.is_file():
            seen.add(page)
            waiting += [(page.parent / link.partition("#")[0]).resolve() for link in links(page)]
    assert sorted(str(page.relative_to(ROOT)) for page in ROOT.glob("docs/*.md") if page not in seen) == []


def test_every_image_is_shown_on_some_page():
    shown = {(page.parent / link).resolve() for page in PAGES for link in links(page)}
    assert [path.name for path in sorted(ROOT.glob("docs/images/*")) if path not in shown] == []


def test_a_broken_link_would_be_found(tmp_path):
    page = ROOT / "docs/data.md"
    assert links(page)
    assert "bring-your-own-data" in anchors(page)
    made = tmp_path / "page.md"
    made.write_text("[a](nowhere.md) `[b](code.md)` [c](https://example.org) [d](#no-heading)\n# A heading\n")
    assert broken(made) == ["nowhere.md", "#no-heading"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_files_of_the_repository_that_a_page_names_exist(page):
    named = set(
        re.findall(r"`((?:benchmarks|tests|docs|packages)/[\w./-]+\.\w+)`", page.read_text(encoding="utf-8"))
    )
    named = {
        name for name in named if "six" not in re.split(r"[/_.]", name)
    }  # the paper that CONTRIBUTING makes up
    assert sorted(name for name in named if not (ROOT / name).exists()) == []
