"""``leorn-train``: a run of LEORN from the options to the report."""

from __future__ import annotations

from argparse import Namespace
from functools import partial
from typing import TYPE_CHECKING

from leorn.config import TITLE, Config
from vmr_common.splits.sources import found_path
from vmr_train.cli import options

if TYPE_CHECKING:
    from vmr_train.cli.results import Results

# options of memory alone, which a resumed training may change
MAY_CHANGE = ("model.recompute", "data.cache_gb")


def train(config: Config, given: Namespace) -> Results:
    """Trains LEORN, evaluates the selected weights on the test split and writes the report; returns its figures.

    Args:
        config: The run.
        given: The options beside it, see `options.train_options`.
    """
    # torch takes seconds to load: not before the options are understood
    from leorn.data import Preprocessor, build_dataset
    from leorn.explain import draw_attention
    from leorn.initial import load_pretrained
    from leorn.inputs import InputFeatures
    from leorn.method import LEORNMethod
    from vmr_train import distributed
    from vmr_train.cli import checks, commands, inputs
    from vmr_train.cli.presence import calibrate
    from vmr_train.trainer import Trainer

    with commands.open_run("leorn", config, given) as run:
        splits = commands.load_splits(config, given.root)
        # whatever can be wrong is found out, on all processes together, before the first update
        with distributed.agreement():
            # videos: the objects of F frames and, with two streams, clip features pooled to as many
            videos = InputFeatures.open(config, given.root)
            # queries whose videos have features, made as the configuration says
            splits = inputs.of_training(config, given, run, videos, splits)

            # the split that chooses the epoch; device, protocols and annotations must suit the run
            selection = checks.selection_split(config.train, splits)
            train_config = checks.check_run(config, splits, selection)
            checks.require_moments("LEORN", splits.train.queries)
            inputs.read_videos(videos, splits)

            # sentences: the vectors of the training queries' words
            glove = found_path(config.data.word_vectors, given.root)
            preprocessor = Preprocessor.learn(
                splits.train.queries,
                glove,
                config.words_of,
                videos.clips if config.data.standardise else None,
            )
            build = partial(build_dataset, config, preprocessor, videos, glove)
            datasets = commands.build_datasets(build, splits, selection, videos)

            # the network, whose initial weights are part of the run
            commands.seed(config)
            method = LEORNMethod.build(config, preprocessor)
            # two-stage recipe: the second stage begins with the object reasoning of the first
            load_pretrained(method.model, config.init)

        provenance = inputs.describe_run("leorn", config, splits, videos.store, [glove], run, given.root)
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
        commands.load_best(run, method, "leorn")
        presence = calibrate(run, config, method, datasets.selection, selection)
        results = commands.evaluate(
            "leorn",
            config,
            method,
            datasets.test,
            splits.test,
            splits.train.queries,
            inputs=videos,
            presence=presence,
            with_flops=True,
        )
        draw = partial(draw_attention, config, method, videos, glove)
        return commands.finish(run, given, trainer, fitted, results, draw=draw)


command = options.train_command("leorn", TITLE, Config, train)
"""``leorn-train``."""
