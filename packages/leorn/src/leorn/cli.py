"""``leorn-eval``, ``leorn-predict`` and ``leorn-import``."""

from __future__ import annotations

from leorn.config import TITLE, Config
from vmr_common.splits.sources import found_path
from vmr_train.cli import options, requests, video_files


@options.command
def evaluate(argv: list[str]) -> None:
    """Scores a checkpoint on a split."""
    parser = options.evaluate_parser("leorn", TITLE)
    config, given, checkpoint = options.read_checkpoint(parser, Config, argv, "leorn")

    from leorn.data import build_dataset
    from leorn.inputs import InputFeatures
    from leorn.method import LEORNMethod
    from vmr_train import distributed
    from vmr_train.cli import commands, inputs

    with distributed.session(config.train.device, config.train.peer_timeout):
        split, train_queries = distributed.from_rank_zero(
            lambda: requests.requested_split(config, given, given.root)
        )
        with distributed.agreement():
            videos = InputFeatures.open(config, given.root)
            queries = inputs.of_evaluation(config, given, checkpoint, videos, split)
            method = LEORNMethod.restore(config, checkpoint)
            glove = found_path(config.data.word_vectors, given.root)
            dataset = build_dataset(config, method.preprocessor, videos, glove, queries)
            commands.require_answerable(dataset, split)
        results = commands.evaluate(
            "leorn",
            config,
            method,
            dataset,
            split,
            train_queries,
            inputs=videos,
            presence=checkpoint.presence,
        )
        commands.print_results(given, results)


@options.command
def predict(argv: list[str]) -> None:
    """Finds the moments of one sentence in one video, or of a file of sentences."""
    parser = options.predict_parser("leorn", TITLE)
    about = "draw the objects that mattered in the best moment here (PNG)"
    parser.add_argument("--explain", type=str, default=None, help=about)
    about = "folder with VIDEO.npy or a folder VIDEO of pictures, for --explain (Shapes and video files need none)"
    parser.add_argument("--frames", type=str, default=None, help=about)
    config, given, checkpoint = options.read_checkpoint(parser, Config, argv, "leorn")

    from leorn.data import build_dataset
    from leorn.explain import explain
    from leorn.inputs import InputFeatures
    from leorn.method import LEORNMethod
    from vmr_train.cli.moments import find_moments, print_moments

    method = LEORNMethod.restore(config, checkpoint)
    if given.video_file is None:
        videos = InputFeatures.open(config, given.root)
    else:
        making = video_files.making(config, given, checkpoint)
        videos = InputFeatures.of_video_files(config, video_files.paths(given), making)
    queries = requests.requested_queries(config, given, videos.store, checkpoint)
    glove = found_path(config.data.word_vectors, given.root)
    dataset = build_dataset(config, method.preprocessor, videos, glove, queries)
    found = find_moments(config, method, dataset, queries, given.k, checkpoint.presence)
    explain(config, method, videos, dataset, found, given)
    print_moments(given, found)


@options.command
def import_official(argv: list[str]) -> None:
    """Turns the authors' weights into a checkpoint of ours; words are looked up in the vector file when needed."""
    parser = options.import_parser("leorn", TITLE)
    config, given = options.read_config(parser, Config, argv, "leorn")

    from leorn.data import Preprocessor
    from leorn.method import LEORNMethod
    from leorn.official import from_official
    from vmr_train.cli import commands

    released = commands.read_released(config, given)
    weights = from_official(released)
    words = Preprocessor.from_released(weights, "text.gru.weight_ih_l0", given.weights)
    method = LEORNMethod.build(config, words)
    commands.save_imported("leorn", config, method, weights, released, given)
