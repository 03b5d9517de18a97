"""``rgnet-train``: a run of RGNet from the options to the report (paper section 4)."""

from __future__ import annotations

from argparse import Namespace
from functools import partial
from typing import TYPE_CHECKING

from rgnet.config import DEFAULT, TITLE, Config
from vmr_train.cli import options

if TYPE_CHECKING:
    from vmr_train.cli.results import Results

MAY_CHANGE = ("data.cache_gb", "search.window_batch_size", "search.cached_videos")
"""Options of memory and speed alone, which a resumed training may change."""


def train(config: Config, given: Namespace) -> Results:
    """Trains RGNet, evaluates the selected weights on the test split and writes the report; returns its figures.

    Args:
        config: The run.
        given: The options beside it, see `options.train_options`.
    """
    # torch takes seconds to load: not before the options are understood
    from rgnet.data import build_dataset, open_frames, query_files, query_store
    from rgnet.method import RGNetMethod, window_curves
    from rgnet.search.window_recall import recall_lines
    from rgnet.stride import with_stride
    from vmr_train import distributed, preprocessing
    from vmr_train.cli import checks, commands, inputs
    from vmr_train.cli.presence import calibrate
    from vmr_train.trainer import Trainer

    with commands.open_run("rgnet", config, given) as run:
        splits = commands.load_splits(config, given.root)
        # whatever can be wrong is found out, on all processes together, before the first update
        with distributed.agreement():
            # videos: frame features of whole videos, standardised where the configuration says so
            frames, vectors = open_frames(config, given.root), query_store(config, given.root)
            # queries whose videos have features, made as the configuration says
            splits = inputs.of_training(config, given, run, frames, splits, queries=vectors)
            annotated = [*splits.train.queries, *splits.test.queries]
            config = with_stride(config, frames.store, annotated, allow=given.allow_other_features)

            # the split that chooses the epoch; device, protocols and annotations must suit the run
            selection = checks.selection_split(config.train, splits)
            train_config = checks.check_run(config, splits, selection)
            checks.require_moments("RGNet", splits.train.queries)
            inputs.read_videos(frames, splits)
            scale = None
            if config.data.standardise:
                scale = preprocessing.measured_scale(frames, splits.train.queries)

            # sentences: tokens and sentence vectors, from word vectors or a feature file
            build = partial(build_dataset, config, scale, frames, given.root)
            datasets = commands.build_datasets(build, splits, selection, frames)

            # the network, with initial weights of the run or of an earlier training (pretraining on narrations)
            commands.seed(config)
            method = RGNetMethod.build(config, scale)
            if config.init is not None:
                method.start_from(config.init)

        words = query_files(config, given.root)
        provenance = inputs.describe_run(
            "rgnet",
            config,
            splits,
            frames.store,
            words,
            run,
            given.root,
            queries=vectors,
        )
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
        commands.load_best(run, method, "rgnet")
        presence = calibrate(run, config, method, datasets.selection, selection)
        results = commands.evaluate(
            "rgnet",
            config,
            method,
            datasets.test,
            splits.test,
            splits.train.queries,
            inputs=frames,
            presence=presence,
            with_flops=True,
        )
        recall = recall_lines(method.windows, splits.test.queries, config.data)
        curves = partial(window_curves, config, method, frames, given.root)
        return commands.finish(run, given, trainer, fitted, results, curves=curves, remarks=recall)


command = options.train_command("rgnet", TITLE, Config, train, DEFAULT)
"""``rgnet-train``."""
