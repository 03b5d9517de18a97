"""Runs of the toy command in real processes, started in no time."""

import json
import multiprocessing
import time
from pathlib import Path

import training_toy as toy
from processes import PATIENCE_S
from processes import ranks as places

TRAIN = {"epochs": 4, "global_batch": 8, "log_updates": 5}  # 6 updates an epoch, the last of 5 queries

# a server that has imported torch once forks a fresh process for each run: real processes, started in no time
processes = multiprocessing.get_context("forkserver")
processes.set_forkserver_preload(["torch", "torch._dynamo", "torch.distributed", "training_toy"])


class Run:
    """One run of the toy command in processes of its own, one per rank (`alone`: the others never come)."""

    def __init__(self, folder, *flags, ranks=1, file_limit=None, grace=None, alone=False, **options):
        self.folder, self.output = folder, folder.with_suffix(".out")
        self.log = folder.with_suffix(".log")
        options = {"train": {}, "optim": {"lr": 0.02}, "task": {}, **options}
        options["train"] = {**TRAIN, **options["train"]}
        options["task"] = {"log": str(self.log), **options["task"]}
        arguments = [str(folder), *flags]
        arguments += [text for name, value in options.items() for text in (f"--{name}", json.dumps(value))]
        arguments += ["--file-limit", str(file_limit)] if file_limit else []
        arguments += ["--grace", str(grace)] if grace else []
        self.arguments = arguments
        self.ranks = []
        for place in places(ranks)[: 1 if alone else ranks]:
            process = processes.Process(
                target=toy.work, args=(arguments, self.output, place if ranks > 1 else {})
            )
            process.start()
            self.ranks.append(process)

    def updates(self, rank=0):
        """What each forward pass has logged: update, epoch, rank, queries."""
        path = Path(f"{self.log}.{rank}")
        text = path.read_text() if path.exists() else ""
        return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]

    def wait_for(self, forward_passes):
        deadline = time.monotonic() + PATIENCE_S
        while len(self.updates()) < forward_passes and self.ranks[0].is_alive():
            assert time.monotonic() < deadline, self.text()
            time.sleep(0.002)

    def end(self):
        """Exit statuses by rank (negative: the signal that killed it)."""
        for process in self.ranks:
            process.join(PATIENCE_S)
        codes = [process.exitcode for process in self.ranks]
        for process in self.ranks:
            process.kill()
        return codes

    def text(self):
        return self.output.read_text()
