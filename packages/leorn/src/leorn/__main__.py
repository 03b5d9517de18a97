"""``python -m leorn train|eval|predict|import ...``, for torchrun and wherever console scripts are not at hand."""

import sys

from leorn import cli

COMMANDS = {"train": cli.train, "eval": cli.evaluate, "predict": cli.predict, "import": cli.import_official}


def main() -> int:
    """Runs the command named first; 2 if there is none of that name."""
    if len(sys.argv) < 2 or sys.argv[1] not in COMMANDS:
        sys.stderr.write(f"usage: python -m leorn {{{','.join(COMMANDS)}}} ...\n")
        return 2
    return COMMANDS[sys.argv[1]](sys.argv[2:])


if __name__ == "__main__":
    sys.exit(main())
