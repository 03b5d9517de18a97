"""``python -m cfmr train|eval|...``, for torchrun and wherever console scripts are not at hand."""

import sys

from cfmr import cli
from cfmr.index.cli import index, search
from vmr_common.cli.entrypoint import dispatch

COMMANDS = {
    "train": cli.train,
    "eval": cli.evaluate,
    "predict": cli.predict,
    "import": cli.import_official,
    "index": index,
    "search": search,
}

if __name__ == "__main__":
    sys.exit(dispatch("python -m cfmr", COMMANDS))
