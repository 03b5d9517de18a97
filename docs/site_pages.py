"""Pages of the site beside docs/*.md: the texts at the root, and an API reference with a page per public module.

mkdocs calls the functions ``on_*`` (``hooks`` in mkdocs.yml). Nothing is written into docs/.
"""

import ast
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
ROOT_TEXTS = ("CHANGELOG", "CONTRIBUTING", "SECURITY")
PACKAGES = (
    "vmr_common",
    "vmr_train",
    "vmr_shapes",
    "vmr_video",
    "vmr_search",
    "rgn",
    "cfmr",
    "cdn",
    "leorn",
    "rgnet",
)


def public_modules() -> dict[str, Path]:
    """Source file of every public module by its dotted name, package by package, each before what is inside it."""
    found = {}
    for package in PACKAGES:
        source = ROOT / "packages" / package.replace("_", "-") / "src"
        for path in sorted((source / package).rglob("*.py"), key=lambda path: path.with_suffix("").parts):
            *parents, name = path.relative_to(source).with_suffix("").parts
            parts = parents if name == "__init__" else [*parents, name]
            if not any(part.startswith("_") for part in parts):
                found[".".join(parts)] = path
    return dict(sorted(found.items(), key=lambda item: (PACKAGES.index(item[0].split(".")[0]), item[0])))


def address(module: str, source: Path) -> str:
    """Where a module's page stands, from the root of the site."""
    folder = "/".join(["api", *module.split(".")])
    return f"{folder}/index.md" if source.name == "__init__.py" else f"{folder}.md"


def summary(source: Path) -> str:
    """The first paragraph of a module's docstring, on one line."""
    text = ast.get_docstring(ast.parse(source.read_text(encoding="utf-8"))) or ""
    return " ".join(text.split("\n\n")[0].split())


def row(module: str, source: Path, folder: str) -> str:
    """A line of a table that links to a module's page from a page in `folder`."""
    return f"| [{module}]({address(module, source).removeprefix(folder)}) | {summary(source)} |\n"


def api_pages() -> dict[str, str]:
    """Markdown of the API reference by address: a page per module, and one that lists the packages."""
    modules = public_modules()
    pages = {}
    for name, source in modules.items():
        text = f"# {name}\n\n::: {name}\n"
        inside = [other for other in modules if other.startswith(f"{name}.") and name.count(".") == 0]
        if inside:
            text += f"\n## Modules of {name}\n\n| module | |\n| --- | --- |\n"
            text += "".join(row(other, modules[other], f"api/{name}/") for other in inside)
        pages[address(name, source)] = text
    rows = "".join(row(name, modules[name], "api/") for name in PACKAGES)
    about = (
        "Every public module with what its functions and classes take, give and raise, from their docstrings."
    )
    pages["api/index.md"] = f"# API reference\n\n{about}\n\n| package | |\n| --- | --- |\n{rows}"
    return pages


def api_navigation() -> dict[str, Any]:
    """The part of the navigation that leads to the pages of `api_pages`."""
    modules = public_modules()
    entries: list[Any] = ["api/index.md"]
    for package in PACKAGES:
        inside = {name: source for name, source in modules.items() if name.startswith(f"{package}.")}
        pages = [{name.removeprefix(f"{package}."): address(name, source)} for name, source in inside.items()]
        entries.append({package: [address(package, modules[package]), *pages]})
    return {"API": entries}


def defined(source: Path) -> set[str]:
    """Names that have a place of their own on a module's page: functions, classes and methods, as ``Class.method``."""
    found = set()
    for node in ast.parse(source.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            inside = node.body if isinstance(node, ast.ClassDef) else []
            methods = [inner.name for inner in inside if isinstance(inner, ast.FunctionDef)]
            found |= {node.name, *(f"{node.name}.{name}" for name in methods)}
    return {name for name in found if not re.search(r"(^|\.)_", name)}


def code_links(text: str, modules: dict[str, Path]) -> str:
    """Markdown whose names of code, ``rgn.model.RGN`` between backticks, lead to the API reference."""

    def link(match: re.Match[str]) -> str:
        name = match.group(1)
        module = name
        while module and module not in modules:
            module = module.rpartition(".")[0]
        if not module:
            return match.group(0)
        inside = name[len(module) + 1 :] in defined(modules[module])
        return f"[`{name}`]({address(module, modules[module])}{f'#{name}' if inside else ''})"

    names = rf"`((?:{'|'.join(PACKAGES)})(?:\.\w+)+)`(?!\])"
    blocks = re.split(r"(^```.*?^```$)", text, flags=re.MULTILINE | re.DOTALL)
    return "".join(part if part.startswith("```") else re.sub(names, link, part) for part in blocks)


def title(name: str) -> str:
    """What a page of docs/ or a text at the root is called: its first heading, up to a colon."""
    source = next(path for path in (ROOT / f"docs/{name}.md", ROOT / f"{name}.md") if path.is_file())
    heading = re.search(r"^# (.+?)(:|$)", source.read_text(encoding="utf-8"), re.MULTILINE)
    return heading.group(1) if heading else name


def site_links(text: str) -> str:
    """Markdown whose links between docs/ and the root lead to where these pages stand, and say the pages' titles."""
    text = re.sub(r"\]\(\.\./README\.md", "](index.md", text)
    text = re.sub(r"\]\(\.\./([A-Z]+\.md)", r"](\1", text)
    text = re.sub(r"\]\(docs/", "](", text)
    return re.sub(r"\[([\w-]+)\.md\]\((?=\1\.md)", lambda match: f"[{title(match.group(1))}](", text)


def on_config(config: Any) -> Any:
    """The configuration with the API in the navigation, and headings named as code hosts name them."""
    from pymdownx.slugs import slugify

    config.nav.append(api_navigation())
    config.mdx_configs["toc"]["slugify"] = slugify(case="lower")
    return config


def on_files(files: Any, config: Any) -> Any:
    """The files of docs/ and the generated ones."""
    from mkdocs.structure.files import File

    for name in ROOT_TEXTS:
        files.append(File.generated(config, f"{name}.md", abs_src_path=str(ROOT / f"{name}.md")))
    for name, text in api_pages().items():
        files.append(File.generated(config, name, content=text))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """The text of a page with links as the site needs them."""
    if page.file.src_uri.startswith("api/"):
        return markdown
    page.meta["search"] = {"boost": 2}  # a page that tells of something comes before the names of code
    return code_links(site_links(markdown), public_modules())
