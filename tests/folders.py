"""The folders of this repository, and what tests ask of any folder."""

import hashlib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
MODELS = sorted(path.name for path in (ROOT / "packages").iterdir() if not path.name.startswith("vmr-"))
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("packages/*/README.md")])


def digests(folder: Path) -> dict[str, str]:
    """A hash of every file below a folder, by its path; not of the lock, which only says who was there last."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != ".lock")
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
