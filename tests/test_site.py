"""The site has a page for everything, and leads to it."""

import ast
import importlib.util
import inspect
import pkgutil
import re

import pytest
import yaml

from folders import ROOT

pytestmark = pytest.mark.e2e  # the whole reference is made

spec = importlib.util.spec_from_file_location("site_pages", ROOT / "docs/site_pages.py")
site_pages = importlib.util.module_from_spec(spec)
spec.loader.exec_module(site_pages)


def leaves(navigation):
    """Addresses in a navigation, in order."""
    if isinstance(navigation, str):
        return [navigation]
    inside = navigation.values() if isinstance(navigation, dict) else navigation
    return [address for part in inside for address in leaves(part)]


@pytest.fixture(scope="module")
def configuration():
    return yaml.safe_load((ROOT / "mkdocs.yml").read_text())


def test_every_public_module_has_a_page():
    roots = [str(path) for path in ROOT.glob("packages/*/src")]
    packages = {info.name: info.module_finder for info in pkgutil.iter_modules(roots) if info.ispkg}
    found = set(packages)
    for name, finder in packages.items():
        inside = pkgutil.walk_packages([f"{finder.path}/{name}"], f"{name}.")
        found |= {info.name for info in inside if "._" not in info.name}
    directives = re.findall(r"^::: (\S+)$", "\n".join(site_pages.api_pages().values()), re.MULTILINE)
    assert sorted(directives) == sorted(found)
    assert len(found) > 200


def test_every_page_of_the_reference_is_in_the_navigation_once():
    listed = leaves(site_pages.api_navigation())
    assert sorted(listed) == sorted(site_pages.api_pages())


def test_every_page_of_the_documentation_is_in_the_navigation(configuration):
    texts = {f"{name}.md" for name in site_pages.ROOT_TEXTS}
    assert set(leaves(configuration["nav"])) == {path.name for path in ROOT.glob("docs/*.md")} | texts


def test_the_reference_reads_every_package(configuration):
    (plugin,) = (entry["mkdocstrings"] for entry in configuration["plugins"] if "mkdocstrings" in entry)
    paths = plugin["handlers"]["python"]["paths"]
    assert {ROOT / path for path in paths} == set(ROOT.glob("packages/*/src"))


def test_links_to_the_root_and_back_lead_to_pages_of_the_site():
    text = "[a](../CONTRIBUTING.md) [b](../README.md) [c](docs/data.md#splits) [rgn.md](rgn.md)"
    shown = "[a](CONTRIBUTING.md) [b](index.md) [c](data.md#splits) [RGN](rgn.md)"
    assert site_pages.site_links(text) == shown
    for page in ROOT.glob("docs/*.md"):
        outside = re.findall(r"\]\((\.\./[^)#]+)", page.read_text(encoding="utf-8"))
        assert {name for name in outside if "../" in site_pages.site_links(f"[x]({name})")} == set()


def test_names_of_code_lead_to_the_reference():
    modules = site_pages.public_modules()
    text = "`rgn.model.RGN.forward`, `rgn.model`, `rgn.nothing`, `path.stem`\n\n```\n`rgn.model`\n```\n"
    assert site_pages.code_links(text, modules) == (
        "[`rgn.model.RGN.forward`](api/rgn/model.md#rgn.model.RGN.forward), [`rgn.model`](api/rgn/model.md), "
        "[`rgn.nothing`](api/rgn/index.md), `path.stem`\n\n```\n`rgn.model`\n```\n"
    )
    pages = [page.read_text(encoding="utf-8") for page in ROOT.glob("docs/*.md")]
    named = {
        name for page in pages for name in re.findall(r"`((?:rgn|cfmr|cdn|leorn|rgnet)\.[\w.]+\.\w+)`", page)
    }
    known = {f"{module}.{name}" for module in modules for name in site_pages.defined(modules[module])} | set(
        modules
    )
    assert (
        sorted(name for name in named - known if not re.search(r"\.(md|yaml|h5|safetensors|json)$", name))
        == []
    )


def unnamed_entries(docstring):
    """Lines of the sections that name things which name none: a longer text goes on further in."""
    found, inside = [], None
    for line in inspect.cleandoc(docstring).splitlines():
        depth = len(line) - len(line.lstrip())
        if line.strip() in ("Args:", "Attributes:", "Raises:"):
            inside = depth
        elif line.strip() and inside is not None:
            if depth <= inside:
                inside = None
            elif depth == inside + 4 and not re.match(r"\s*[*`\w][\w*`, .]*( \(.+?\))?: ", line):
                found.append(line.strip())
    return found


def test_the_reference_can_read_what_docstrings_list():
    assert unnamed_entries("A thing.\n\n    Args:\n        a: First,\n        and more.\n") == ["and more."]
    kinds = ast.Module | ast.ClassDef | ast.FunctionDef
    for path in ROOT.glob("packages/*/src/**/*.py"):
        texts = [
            ast.get_docstring(node)
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, kinds)
        ]
        assert [line for text in texts if text for line in unnamed_entries(text)] == [], path
