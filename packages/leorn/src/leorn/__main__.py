"""``python -m leorn train|eval|predict|import ...``, for torchrun and wherever console scripts are not at hand."""

import sys

from leorn.cli import evaluate, import_official, predict
from leorn.training import command as train
from vmr_train.cli import options

COMMANDS = {"train": train, "eval": evaluate, "predict": predict, "import": import_official}

if __name__ == "__main__":
    sys.exit(options.dispatch("python -m leorn", COMMANDS))
