"""``rgn-eval``, ``rgn-predict`` and ``rgn-import``."""

from __future__ import annotations

from rgn.config import TITLE, Config
from vmr_common.splits.sources import found_path
from vmr_train.cli import options, requests, video_files


@options.command
def evaluate(argv: list[str]) -> None:
    """Scores a checkpoint on a split."""
    parser = options.evaluate_parser("rgn", TITLE)
    config, given, checkpoint = options.read_checkpoint(parser, Config, argv, "rgn")

    from rgn.data import build_dataset, open_clips
    from rgn.method import RGNMethod
    from vmr_train import distributed
    from vmr_train.cli import commands, inputs

    with distributed.session(config.train.device, config.train.peer_timeout):
        split, train_queries = distributed.from_rank_zero(
            lambda: requests.requested_split(config, given, given.root)
        )
        with distributed.agreement():
            clips = open_clips(config, given.root)
            queries = inputs.of_evaluation(config, given, checkpoint, clips, split)
            method = RGNMethod.restore(config, checkpoint)
            dataset = build_dataset(config, method.preprocessor, clips, queries)
            commands.require_answerable(dataset, split)
        results = commands.evaluate(
            "rgn", config, method, dataset, split, train_queries, inputs=clips, presence=checkpoint.presence
        )
        commands.print_results(given, results)


@options.command
def predict(argv: list[str]) -> None:
    """Finds the moments of one sentence in one video, or of a file of sentences."""
    parser = options.predict_parser("rgn", TITLE)
    config, given, checkpoint = options.read_checkpoint(parser, Config, argv, "rgn")

    from rgn.data import build_dataset, open_clips
    from rgn.method import RGNMethod
    from vmr_train.cli.moments import find_moments, print_moments

    method = RGNMethod.restore(config, checkpoint)
    features = video_files.frame_features(config, given, checkpoint)
    clips = open_clips(config, given.root, features)
    queries = requests.requested_queries(config, given, clips.store, checkpoint)
    dataset = build_dataset(config, method.preprocessor, clips, queries)
    found = find_moments(config, method, dataset, queries, given.k, checkpoint.presence)
    print_moments(given, found)


@options.command
def import_official(argv: list[str]) -> None:
    """Turns the authors' weights into a checkpoint of ours."""
    parser = options.import_parser("rgn", TITLE)
    options.add_word_list(parser)
    config, given = options.read_config(parser, Config, argv, "rgn")

    from rgn.method import RGNMethod
    from rgn.official import from_official
    from vmr_train.cli import commands
    from vmr_train.preprocessing import Preprocessor

    released = commands.read_released(config, given)
    weights = from_official(released)
    words = Preprocessor.from_released(weights, given.words, found_path(config.data.word_vectors, given.root))
    method = RGNMethod.build(config, words)
    commands.save_imported("rgn", config, method, weights, released, given)
