"""``cdn-eval``, ``cdn-predict`` and ``cdn-import``."""

from __future__ import annotations

from cdn.config import TITLE, Config
from vmr_common.splits.sources import found_path
from vmr_train.cli import options, requests, video_files


@options.command
def evaluate(argv: list[str]) -> None:
    """Scores a checkpoint on a split."""
    parser = options.evaluate_parser("cdn", TITLE)
    config, given, checkpoint = options.read_checkpoint(parser, Config, argv, "cdn")

    from cdn.data import build_dataset, open_frames
    from cdn.method import CDNMethod
    from vmr_train import distributed
    from vmr_train.cli import commands, inputs

    with distributed.session(config.train.device, config.train.peer_timeout):
        split, train_queries = distributed.from_rank_zero(
            lambda: requests.requested_split(config, given, given.root)
        )
        with distributed.agreement():
            frames = open_frames(config, given.root)
            queries = inputs.of_evaluation(config, given, checkpoint, frames, split)
            method = CDNMethod.restore(config, checkpoint)
            glove = found_path(config.data.word_vectors, given.root)
            dataset = build_dataset(config, method.preprocessor, frames, glove, queries)
            commands.require_answerable(dataset, split)
        results = commands.evaluate(
            "cdn", config, method, dataset, split, train_queries, inputs=frames, presence=checkpoint.presence
        )
        commands.print_results(given, results)


@options.command
def predict(argv: list[str]) -> None:
    """Finds the moments of one sentence in one video, or of a file of sentences."""
    parser = options.predict_parser("cdn", TITLE)
    config, given, checkpoint = options.read_checkpoint(parser, Config, argv, "cdn")

    from cdn.data import build_dataset, open_frames
    from cdn.method import CDNMethod
    from vmr_train.cli.moments import find_moments, print_moments

    method = CDNMethod.restore(config, checkpoint)
    features = video_files.frame_features(config, given, checkpoint)
    frames = open_frames(config, given.root, features)
    queries = requests.requested_queries(config, given, frames.store, checkpoint)
    glove = found_path(config.data.word_vectors, given.root)
    dataset = build_dataset(config, method.preprocessor, frames, glove, queries)
    found = find_moments(config, method, dataset, queries, given.k, checkpoint.presence)
    print_moments(given, found)


@options.command
def import_official(argv: list[str]) -> None:
    """Turns the authors' weights into a checkpoint of ours; words are looked up in the vector file when needed."""
    parser = options.import_parser("cdn", TITLE)
    config, given = options.read_config(parser, Config, argv, "cdn")

    from cdn.data import Preprocessor
    from cdn.method import CDNMethod
    from cdn.official import from_official
    from vmr_train.cli import commands

    released = commands.read_released(config, given)
    weights = from_official(released)
    words = Preprocessor.from_released(weights, "text.lstm.weight_ih_l0", given.weights)
    method = CDNMethod.build(config, words)
    commands.save_imported("cdn", config, method, weights, released, given)
