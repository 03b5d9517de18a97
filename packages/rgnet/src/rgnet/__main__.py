"""``python -m rgnet train|eval|predict|import ...``, for torchrun and wherever console scripts are not at hand."""

import sys

from rgnet.cli import evaluate, import_official, predict
from rgnet.training import command as train
from vmr_train.cli.options import dispatch

COMMANDS = {"train": train, "eval": evaluate, "predict": predict, "import": import_official}

if __name__ == "__main__":
    sys.exit(dispatch("python -m rgnet", COMMANDS))
