"""``rgn-train``: a run of RGN from the options to the report (paper section 4)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from rgn.config import TITLE, Config
from vmr_common.splits.config import load_splits
from vmr_common.splits.load import Split, data_root
from vmr_train.cli import options

MAY_CHANGE = ("passes_per_chunk",)
"""Options of memory alone, which a resumed training may change."""


@options.command
def train(argv: Sequence[str]) -> None:
    """Trains RGN, evaluates the selected weights on the test split and writes the report."""
    parser = options.train_parser("rgn", TITLE)
    config, given = options.read_train_options(parser, Config, argv, "rgn")
    root, folder = data_root(given.data_root), Path(given.runs) / "rgn" / config.name

    # torch takes seconds to load: not before the options are understood
    from rgn.data import Dataset, build_dataset, open_clips, require_glances
    from rgn.method import RGNMethod, reglance_curves
    from vmr_train import device, distributed
    from vmr_train.cli import commands
    from vmr_train.cli.config import to_yaml
    from vmr_train.cli.write_report import write_report
    from vmr_train.preprocessing import Preprocessor
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
            require_glances(splits.train.queries)

            # video: clip features, pooled to N clips
            clips = open_clips(config, root)
            commands.read_videos(clips, splits)
            # text: the vocabulary of the training queries with its word vectors
            device.seed_everything(config.train.seed)
            glove = root / config.data.word_vectors
            preprocessor = Preprocessor.learn(
                splits.train.queries,
                glove,
                config.data.vocabulary,
                clips if config.data.standardise else None,
            )
            method = RGNMethod.build(config, preprocessor)

            def dataset(split: Split) -> Dataset:
                return commands.answerable(build_dataset(config, preprocessor, clips, split.queries), split)

            train_set, test_set = dataset(splits.train), dataset(splits.test)
            selection_set = None if selection is None else dataset(selection)

        provenance = commands.describe_run("rgn", config, splits, clips.store, [glove], run)
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

        best = commands.load_best(run, method, "rgn")
        results = commands.evaluate(
            "rgn", config, method, test_set, splits.test, splits.train.queries, with_flops=True
        )
        facts = commands.facts_of("rgn", given, run, trainer, fitted, best)
        write_report(run, results, facts, root, curves=partial(reglance_curves, config, method, clips))
        run.finish()
        commands.say_trained("rgn", given, run, results)
