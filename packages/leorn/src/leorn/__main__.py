"""``python -m leorn train|eval|predict|import ...``, for torchrun and wherever console scripts are not at hand."""

import sys

from leorn import cli
from vmr_common.cli.entrypoint import dispatch

COMMANDS = {"train": cli.train, "eval": cli.evaluate, "predict": cli.predict, "import": cli.import_official}

if __name__ == "__main__":
    sys.exit(dispatch("python -m leorn", COMMANDS))
