"""``cdn-train``: a run of CDN from the options to the report."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cdn.config import TITLE, Config
from vmr_common.splits.config import load_splits
from vmr_common.splits.load import Split, data_root
from vmr_train.cli import options

MAY_CHANGE = ("model.recompute",)
"""Options of memory alone, which a resumed training may change."""


@options.command
def train(argv: Sequence[str]) -> None:
    """Trains CDN, evaluates the selected weights on the test split and writes the report."""
    parser = options.train_parser("cdn", TITLE)
    config, given = options.read_train_options(parser, Config, argv, "cdn")
    root, folder = data_root(given.data_root), Path(given.runs) / "cdn" / config.name

    # torch takes seconds to load: not before the options are understood
    from cdn.data import Dataset, Preprocessor, build_dataset, open_frames, require_moments
    from cdn.method import CDNMethod
    from vmr_train import device, distributed
    from vmr_train.cli import commands
    from vmr_train.cli.config import to_yaml
    from vmr_train.cli.write_report import write_report
    from vmr_train.run_folder import RunFolder
    from vmr_train.trainer import Trainer

    with (
        distributed.session(config.train.device, config.train.peer_timeout),
        RunFolder(folder, resume=given.resume, overwrite=given.overwrite) as run,
    ):
        splits = distributed.from_rank_zero(lambda: load_splits(config.data.splits, root))
        commands.log_splits(splits)
        # whatever can be wrong is found out, on all processes together, before the first update
        with distributed.agreement():
            selection = commands.selection_split(config.train, splits)
            commands.check_run(config, splits, selection)
            require_moments(splits.train.queries)

            # video: frame features, pooled to F frames
            frames = open_frames(config, root)
            commands.read_videos(frames, splits)
            # text: the vectors of the training queries' words
            device.seed_everything(config.train.seed)
            glove = root / config.data.word_vectors
            preprocessor = Preprocessor.learn(
                splits.train.queries,
                glove,
                config.data.words_of,
                frames if config.data.standardise else None,
            )
            method = CDNMethod.build(config, preprocessor)

            def dataset(split: Split) -> Dataset:
                return commands.answerable(
                    build_dataset(config, preprocessor, frames, glove, split.queries), split
                )

            train_set, test_set = dataset(splits.train), dataset(splits.test)
            selection_set = None if selection is None else dataset(selection)

        provenance = commands.describe_run("cdn", config, splits, frames.store, [glove], run)
        with distributed.agreement():
            trainer = Trainer(
                method,
                train_set,
                validation=selection_set,
                evaluate=None if selection is None else commands.metrics_of(selection, config.protocols[0]),
                config=config.train,
                optim=config.optim,
                run=run,
                describe=provenance,
                may_change=MAY_CHANGE,
            )

        run.start()
        if not given.resume:
            run.write_config(to_yaml(config))
        fitted = trainer.fit(resume=given.resume)
        run.write_config(to_yaml(config))  # of a resumed run only now, when it has shown that it is the same

        best = commands.load_best(run, method, "cdn")
        results = commands.evaluate(
            "cdn", config, method, test_set, splits.test, splits.train.queries, with_flops=True
        )
        facts = commands.facts_of("cdn", given, run, trainer, fitted, best)
        write_report(run, results, facts, root)
        run.finish()
        commands.say_trained("cdn", given, run, results)
