"""``cfmr-train``: a run of CFMR from the options to the report."""

from __future__ import annotations

from argparse import Namespace
from functools import partial
from typing import TYPE_CHECKING

from cfmr.config import TITLE, Config
from vmr_common.splits.sources import found_path
from vmr_train.cli import options

if TYPE_CHECKING:
    from vmr_train.cli.results import Results

MAY_CHANGE = ("passes_per_chunk",)  # options of memory alone, which a resumed training may change


def train(config: Config, given: Namespace) -> Results:
    """Trains CFMR, evaluates the selected weights on the test split and writes the report; returns its figures.

    Args:
        config: The run.
        given: The options beside it, see `options.train_options`.
    """
    # torch takes seconds to load: not before the options are understood
    from cfmr.data import build_dataset, open_clips
    from cfmr.method import CFMRMethod
    from vmr_train import distributed
    from vmr_train.cli import checks, commands, inputs
    from vmr_train.cli.presence import calibrate
    from vmr_train.preprocessing import Preprocessor
    from vmr_train.trainer import Trainer

    with commands.open_run("cfmr", config, given) as run:
        splits = commands.load_splits(config, given.root)
        # whatever can be wrong is found out, on all processes together, before the first update
        with distributed.agreement():
            # videos: clip features, pooled to T clips of which every fourth is kept
            clips = open_clips(config, given.root)
            # queries whose videos have features, made as the configuration says
            splits = inputs.of_training(config, given, run, clips, splits)

            # the split that chooses the epoch; device, protocols and annotations must suit the run
            selection = checks.selection_split(config.train, splits)
            train_config = checks.check_run(config, splits, selection)
            checks.require_glances("CFMR", splits.train.queries)
            inputs.read_videos(clips, splits)

            # sentences: the vocabulary of the training queries with its word vectors
            glove = found_path(config.data.word_vectors, given.root)
            preprocessor = Preprocessor.learn(
                splits.train.queries,
                glove,
                config.data.vocabulary,
                clips if config.data.standardise else None,
            )
            build = partial(build_dataset, config, preprocessor, clips)
            datasets = commands.build_datasets(build, splits, selection, clips)

            # the network, whose initial weights are part of the run
            commands.seed(config)
            method = CFMRMethod.build(config, preprocessor)

        provenance = inputs.describe_run("cfmr", config, splits, clips.store, [glove], run, given.root)
        # an update: a step of `config.optim` on method.loss(...)["total"]; an epoch: method.predict, the best is kept
        with distributed.agreement():
            trainer = Trainer(
                method,
                datasets.train,
                validation=datasets.selection,
                evaluate=checks.metrics_of(selection, config.protocols[0]),
                config=train_config,
                optim=config.optim,
                run=run,
                describe=provenance,
                may_change=commands.may_change(given, MAY_CHANGE),
            )
        fitted = trainer.fit(resume=given.resume)

        # the selected weights on the test split, and the report
        commands.load_best(run, method, "cfmr")
        presence = calibrate(run, config, method, datasets.selection, selection)
        results = commands.evaluate(
            "cfmr",
            config,
            method,
            datasets.test,
            splits.test,
            splits.train.queries,
            inputs=clips,
            presence=presence,
            with_flops=True,
        )
        return commands.finish(run, given, trainer, fitted, results)


command = options.train_command("cfmr", TITLE, Config, train)
"""``cfmr-train``."""
