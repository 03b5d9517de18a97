"""``cdn-eval``, ``cdn-predict`` and ``cdn-import``."""

from __future__ import annotations

from collections.abc import Sequence

from cdn.config import TITLE, Config
from vmr_common.features.config import require_videos
from vmr_common.splits.load import data_root
from vmr_train.cli import options, requests


@options.command
def evaluate(argv: Sequence[str]) -> None:
    """Scores a checkpoint on a split."""
    parser = options.evaluate_parser("cdn", TITLE)
    config, given, checkpoint = options.read_checkpoint(parser, Config, argv, "cdn")
    root = data_root(given.data_root)

    from cdn.data import build_dataset, open_frames
    from cdn.method import CDNMethod
    from vmr_train import distributed
    from vmr_train.cli import commands

    with distributed.session(config.train.device, config.train.peer_timeout):
        split, train_queries = distributed.from_rank_zero(
            lambda: requests.requested_split(config, given, root)
        )
        with distributed.agreement():
            frames = open_frames(config, root)
            require_videos(frames.store, {split.name: split.queries})
            method = CDNMethod.restore(config, checkpoint)
            glove = root / config.data.word_vectors
            dataset = build_dataset(config, method.preprocessor, frames, glove, split.queries)
            commands.answerable(dataset, split)
        results = commands.evaluate("cdn", config, method, dataset, split, train_queries)
        commands.say_results(given, results)


@options.command
def predict(argv: Sequence[str]) -> None:
    """Finds the moments of one sentence in one video, or of a file of sentences."""
    parser = options.predict_parser("cdn", TITLE)
    config, given, checkpoint = options.read_checkpoint(parser, Config, argv, "cdn")
    root = data_root(given.data_root)

    from cdn.data import build_dataset, open_frames
    from cdn.method import CDNMethod
    from vmr_train.cli import commands

    frames = open_frames(config, root)
    queries = requests.requested_queries(config, given, frames.store, root)
    require_videos(frames.store, {"the request": queries})
    method = CDNMethod.restore(config, checkpoint)
    dataset = build_dataset(config, method.preprocessor, frames, root / config.data.word_vectors, queries)
    commands.say_moments(given, commands.find_moments(config, method, dataset, given.k))


@options.command
def import_official(argv: Sequence[str]) -> None:
    """Turns the authors' weights into a checkpoint of ours; words are looked up in the vector file when needed."""
    parser = options.import_parser("cdn", TITLE)
    config, given = options.read_config(parser, Config, argv, "cdn")

    from cdn.data import Preprocessor
    from cdn.method import CDNMethod
    from cdn.official import from_official
    from vmr_train.checkpoint import load_weights
    from vmr_train.cli import commands

    released = commands.read_released(config, given)
    weights = from_official(released)
    words = Preprocessor.from_released(weights, "text.lstm.weight_ih_l0", given.weights)
    method = CDNMethod.build(config, words)
    load_weights(method.model, weights, given.weights)
    commands.save_imported("cdn", config, method, released, given)
