"""``python -m cfmr.index build|search ...``, for torchrun."""

import sys

from cfmr.index.cli import index, search

COMMANDS = {"build": index, "search": search}


def main() -> int:
    """Runs the command named first; 2 if there is none of that name."""
    if len(sys.argv) < 2 or sys.argv[1] not in COMMANDS:
        sys.stderr.write(f"usage: python -m cfmr.index {{{','.join(COMMANDS)}}} ...\n")
        return 2
    return COMMANDS[sys.argv[1]](sys.argv[2:])


if __name__ == "__main__":
    sys.exit(main())
