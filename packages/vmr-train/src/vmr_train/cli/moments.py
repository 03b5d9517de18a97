"""The moments that a request asks for: found, and printed."""

from __future__ import annotations

import dataclasses
import json
import logging
from argparse import Namespace
from collections.abc import Callable, Sequence

import numpy as np

from vmr_common.cli.entrypoint import echo
from vmr_common.errors import UserError
from vmr_common.types import Prediction, Query, prediction_row
from vmr_train.cli import video_files
from vmr_train.cli.predict import predict
from vmr_train.cli.results import ranked_moments
from vmr_train.config import RunConfig
from vmr_train.method import Asked, Method, warn_of_left_out
from vmr_train.presence import Calibration, presence_text
from vmr_train.unknown_words import UNKNOWN

logger = logging.getLogger(__name__)


def find_moments(
    config: RunConfig,
    method: Method,
    dataset: Asked,
    queries: Sequence[Query],
    k: int,
    presence: Calibration | None = None,
    say: Callable[[str], object] = lambda line: logger.warning("%s", line),
) -> list[Prediction]:
    """The k best moments of every query; logs which words of the queries the model does not know.

    A query without a word that the model knows has no moment, and is named in the log. With `presence` answers hold the
    probability that there is such a moment, or the log says why not.

    Args:
        config: The configuration.
        method: Holds the weights.
        dataset: Of the queries.
        queries: All of them; `dataset` may leave out those that cannot be answered.
        k: Moments at the most.
        presence: From evidence to a probability.
        say: Takes the lines of the log.

    Raises:
        UserError: if the model knows no word of any query, or its answer is not finite.
    """
    if not dataset.unknown.answerable:
        raise UserError(f"the model knows no word of the query ({dataset.unknown.text() or 'there is none'})")
    without = {queries[number].id for number in dataset.unknown.without}
    read = [query for query in dataset.queries if query.id in without]
    warn_of_left_out(read, len(dataset.queries) - len(read), "no word that the model knows")
    if text := dataset.unknown.text():
        say(text)
    if presence is not None and not presence.figures.works:
        say(
            "this model's scores do not tell whether a sentence is in the video (AUROC "
            f"{presence.figures.auroc:.2f} on {presence.split}): no presence"
        )
        presence = None
    found = predict(config, method, dataset, evidence=presence is not None)
    if presence is not None:
        # of a sentence without meaning to the model, its evidence is that of any video and any sentence
        told = [one for one in found if dataset.unknown.understands(one.text)]
        if len(told) < len(found):
            say("no presence where the model knows none of the words that carry the sentence")
        with_presence = {one.query: one for one in presence.applied(told)}
        found = [with_presence.get(one.query, one) for one in found]
    answers = {one.query: one for one in found if one.query not in without}
    return [_answer(query, answers.get(query.id), k) for query in queries]


def _answer(query: Query, found: Prediction | None, k: int) -> Prediction:
    if found is None:
        none, no_scores = np.zeros((0, 2)), np.zeros(0)
        return Prediction(query=query.id, video=query.video, text=query.text, moments=none, scores=no_scores)
    return dataclasses.replace(found, moments=found.moments[:k], scores=found.scores[:k])


def print_moments(
    given: Namespace, predictions: Sequence[Prediction], table: Callable[[Prediction], str] = ranked_moments
) -> None:
    """Prints the moments of every query as a table each, or as JSON lines; writes what else the options ask for.

    Raises:
        UserError: at the end, if video files could not be read.
    """
    if given.json:
        rows = (prediction_row(one) | ({} if len(one.scores) else {"reason": UNKNOWN}) for one in predictions)
        echo(*(json.dumps(row, ensure_ascii=False) for row in rows))
    else:
        echo("\n\n".join("\n".join(_lines(one, table)) for one in predictions))
    video_files.write_answers(given, [one for one in predictions if len(one.scores)])
    video_files.require_all_read(given)


def _lines(found: Prediction, table: Callable[[Prediction], str]) -> list[str]:
    if not len(found.scores):
        return [f"{found.video}  {found.text}", f"  {UNKNOWN}"]
    return [table(found), *filter(None, [presence_text(found)])]
