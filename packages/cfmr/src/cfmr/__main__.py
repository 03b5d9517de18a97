"""``python -m cfmr train|eval|...``, for torchrun and wherever console scripts are not at hand."""

import sys

from cfmr.cli import evaluate, import_official, predict
from cfmr.index.cli import index, search
from cfmr.training import command as train
from vmr_train.cli import options

COMMANDS = {
    "train": train,
    "eval": evaluate,
    "predict": predict,
    "import": import_official,
    "index": index,
    "search": search,
}

if __name__ == "__main__":
    sys.exit(options.dispatch("python -m cfmr", COMMANDS))
