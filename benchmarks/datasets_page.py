"""Writes docs/datasets.md from the table of sources (``vmr_common/splits/sources.json``).

Error messages about missing files and ``--check`` read the same table.
"""

import argparse
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pages import ROOT, page, table

from vmr_common.io import read_json, write_text

COMMAND = "uv run python benchmarks/datasets_page.py"
TABLE = ROOT / "packages/vmr-common/src/vmr_common/splits/sources.json"
ABOUT = """# Data sets

Where every file that the five papers need is published, and which command reads or makes it.

- Nothing is downloaded by us: put files where the tables say, under the [data root](data.md).
- `rgn-train --check --cfg charades` lists what a configuration needs and lacks.
- "not known" is what we could not confirm; addresses of others may be gone.
- Folders in commands that make a file, such as `charades_sta/regions`, stand for yours.
- Bytes and SHA-256 are of the unpacked file, and are given where we have read it."""
PAPERS = {"rgn": "RGN", "cfmr": "CFMR", "cdn": "CDN", "leorn": "LEORN", "rgnet": "RGNet"}
UNKNOWN = "not known"


def entry_text(entry: Mapping[str, Any]) -> str:
    """What is known of some files: addresses, licence and commands, and a row for each file."""
    title = re.split("[,;:(]", entry["what"])[0].strip()
    lines = [f"### {title[:1].upper()}{title[1:]}", ""]
    lines += [f"- Holds: {entry['what']}"] if title != entry["what"] else []
    places = [f"<{address}>" for address in entry["addresses"]]
    if places or "make" not in entry:
        lines.append(f"- Published: {', '.join(places) or UNKNOWN}")
    if "make" in entry:
        lines.append(f"- Make it: `{entry['make']}`")
    lines += [f"- Licence: {entry['licence']}", f"- Read it: `{entry['read']}`", ""]
    rows = [
        [
            f"`{path}`",
            f"{facts['bytes']:,}" if facts else UNKNOWN,
            f"`{facts['sha256']}`" if facts else UNKNOWN,
        ]
        for path, facts in entry["paths"].items()
    ]
    return "\n".join([*lines, table(["file", "bytes", "SHA-256"], rows)])


def section(name: str, about: Mapping[str, Any], entries: list[Mapping[str, Any]]) -> str:
    """A data set, what the papers report on it, and its files."""
    facts = [f"## {about['title']}", about["about"]]
    facts += [", ".join(f"<{address}>" for address in about["addresses"])] if about["addresses"] else []
    known = [f"- Counts: {about['counts']}."] if about["counts"] else []
    if about["splits"]:
        known.append(
            f"- Splits ([data.md](data.md#splits)): {', '.join(f'`{split}`' for split in about['splits'])}."
        )
    facts += ["\n".join(known)] if known else []
    if about["reports"]:
        facts.append(
            table(["paper", "reports"], [[PAPERS[key], text] for key, text in about["reports"].items()])
        )
    return "\n\n".join([*facts, *map(entry_text, (one for one in entries if one["data_set"] == name))])


def render() -> str:
    """The page."""
    content: Any = read_json(TABLE)
    sections = [section(name, about, content["files"]) for name, about in content["data_sets"].items()]
    return page(ABOUT, *sections, command=COMMAND)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=ROOT / "docs/datasets.md")
    write_text(parser.parse_args().out, render())
    return 0


if __name__ == "__main__":
    sys.exit(main())
