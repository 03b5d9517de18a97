"""Imports every module of every package, each in a process of its own; exit status 1 if one of them fails.

    uv run --no-dev python benchmarks/import_all.py

A module may need an optional package when it is used, not when it is imported. A process per module also finds
circles of imports that only an earlier import hides.
"""

import importlib
import os
import sys
import traceback
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def modules() -> list[str]:
    """Names of all modules under ``packages/*/src``, but those that run a command."""
    names = []
    for source in sorted(ROOT.glob("packages/*/src")):
        for path in sorted(source.rglob("*.py")):
            *folders, name = path.relative_to(source).with_suffix("").parts
            if name != "__main__":
                names.append(".".join(folders if name == "__init__" else [*folders, name]))
    return names


def imports(name: str) -> bool:
    """Whether a forked process can import a module; if not, it says why on stderr."""
    process = os.fork()
    if process:
        return os.waitpid(process, 0)[1] == 0
    status = 1
    try:
        importlib.import_module(name)
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


def main() -> int:
    import torch  # noqa: F401 - once, before the processes part: it is most of the time of an import

    names = modules()
    failed = [name for name in names if not imports(name)]
    print(
        f"{len(names)} modules, {len(failed)} that cannot be imported"
        + "".join(f"\n{name}" for name in failed)
    )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
