"""Search of long videos: retrieval of the best windows, then grounding in them (the paper's inference).

What depends on the video alone is computed once. All windows are run up to their retrieval token (of the last layer
only that row is computed); the best K are completed and decoded. Windows of one length go through the encoder together,
so that nothing is padded there, and memory is bounded by `SearchConfig.window_batch_size` and K, not by the video.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from rgnet.config import SearchConfig
from rgnet.decoder import Decoded
from rgnet.encoder import Encoded, Texts, Windows
from rgnet.matching import matching_scores, top_sum, unit_frames
from rgnet.model import RGNet, Tokens, padded
from rgnet.search.released_mask import ReleasedPaddingMask
from rgnet.search.result import Floats, Integers, SearchResult, search_result
from rgnet.windows import video_windows
from vmr_train.caches import LRUCache

_ROWS_AT_ONCE = 8192
_TABLES = 16


@dataclass(frozen=True, eq=False)
class PreparedVideo:
    """A video as every query needs it.

    Attributes:
        windows: ``(M, 2)`` first row and length of each window.
        projected: ``(L, D)`` projected frames.
        query: ``(L, D)`` their queries in the first cross-attention layer, without positions and bias.
        unit: ``(L, A)`` frames of unit length for the matching score, or None.
    """

    windows: Integers
    projected: Tensor
    query: Tensor
    unit: Tensor | None


@dataclass(frozen=True, eq=False)
class TextVectors:
    """A query: `tokens` ``(n, E)`` of unit length, n at least 1; `sentence` ``(A,)`` of unit length, or None."""

    tokens: Tensor
    sentence: Tensor | None


@dataclass(frozen=True)
class _Length:
    """The part of a window that its length decides: positions ``(1, 1, V, D)``, and their first queries."""

    positions: Tensor
    query: Tensor


@dataclass(frozen=True)
class _Kept:
    """One pair among the best of its query: its state before the last layer, ``(1 + V, ...)`` each."""

    logit: float
    token: Tensor
    state: Tensor
    gate: Tensor
    lowered: Tensor


class LongVideoSearch:
    """Searches prepared videos with a model in evaluation mode; make a new one when the weights change or move.

    Args:
        model: The network.
        config: Numbers of windows and moments.
        window: Rows W of a window.
        feature_stride: Seconds between two feature rows.
    """

    def __init__(self, model: RGNet, config: SearchConfig, *, window: int, feature_stride: float) -> None:
        self.model, self.config = model, config
        self.window, self.feature_stride = window, feature_stride
        self.device = model.retrieval_head.weight.device
        self._lengths: LRUCache[int, _Length] = LRUCache(_TABLES)

    @torch.no_grad()
    def prepare(self, features: Tensor, frames: Tensor | None) -> PreparedVideo:
        """The part of a video that no query changes.

        Args:
            features: ``(L, F)`` what the network reads.
            frames: ``(L, A)`` what sentences are compared with, or None without sentence vectors.
        """
        projected = [self.model.video_projection(part) for part in features.split(_ROWS_AT_ONCE)]
        query = [self.model.encoder.first_query(part, bias=False) for part in projected]
        unit = (
            None
            if frames is None
            else [unit_frames(p, self.model.adapter) for p in frames.split(_ROWS_AT_ONCE)]
        )
        return PreparedVideo(
            video_windows(len(features), self.window),
            torch.cat(projected),
            torch.cat(query),
            None if unit is None else torch.cat(unit),
        )

    @torch.no_grad()
    def search(self, requests: Sequence[tuple[PreparedVideo, TextVectors]]) -> list[SearchResult]:
        """The windows and candidates of each query in its video.

        With the released mask a result depends on all requests and their order, else on its own request alone.
        """
        padding = self._released_padding(requests)
        found: dict[int, SearchResult] = {}
        for numbers in self._groups(requests):
            video = requests[numbers[0]][0]
            texts = [requests[number][1] for number in numbers]
            first = None if padding is None else padding.first[numbers[0]]
            results = self._search_video(video, texts, padding, first)
            found |= dict(zip(numbers, results, strict=True))
        return [found[number] for number in range(len(requests))]

    def _released_padding(
        self, requests: Sequence[tuple[PreparedVideo, TextVectors]]
    ) -> ReleasedPaddingMask | None:
        if not self.model.released_mask:
            return None
        windows = [video.windows for video, _ in requests]
        words = [len(text.tokens) for _, text in requests]
        return ReleasedPaddingMask(windows, words, self.model.config.heads, self.device)

    def _groups(self, requests: Sequence[tuple[PreparedVideo, TextVectors]]) -> Iterator[list[int]]:
        """Queries that are handled together: of one video, and few enough."""
        by_video: dict[int, list[int]] = {}
        for number, (video, _) in enumerate(requests):
            by_video.setdefault(id(video), []).append(number)
        alone = self.model.released_mask or self.config.coarse_windows > 0
        for numbers in by_video.values():
            windows = len(requests[numbers[0]][0].windows)
            size = 1 if alone else max(1, self.config.window_batch_size // windows)
            for start in range(0, len(numbers), size):
                yield numbers[start : start + size]

    def _search_video(
        self,
        video: PreparedVideo,
        texts: Sequence[TextVectors],
        padding: ReleasedPaddingMask | None,
        first: int | None,
    ) -> list[SearchResult]:
        # coarse selection, where it is asked for
        scored, rest = self._choose(video, texts)
        read = self.model.read_texts(Tokens.padded([text.tokens for text in texts]))
        # retrieval: a logit per window; the state of the best K is kept
        kept: list[dict[int, _Kept]] = [{} for _ in texts]
        logits = np.full((len(texts), len(video.windows)), np.nan)
        at_once = max(1, self.config.window_batch_size // len(texts))
        for numbers in by_length(video.windows, scored, at_once):
            words = None
            if padding is not None and first is not None:
                words = padding.words_of(first, numbers, video.windows)
            encoded = self.encode(video, read, numbers, words)
            summary = self.model.encoder.summarise(encoded)  # (G * M, D)
            scores = self.model.retrieval_head(summary)[:, 0].float().view(len(texts), -1).cpu().double()
            logits[:, numbers] = scores.numpy()
            for row, pairs in enumerate(kept):
                self._keep(pairs, numbers, scores[row].tolist(), encoded, summary, row * len(numbers))
        # grounding in the best windows
        decoded = self._decode(video, kept, texts)
        return [
            search_result(
                logits[row],
                rest,
                decoded[row],
                video.windows,
                stride=self.feature_stride,
                matched=video.unit is not None,
                matching_by_retrieval=self.config.matching_by_retrieval,
            )
            for row in range(len(texts))
        ]

    def _choose(self, video: PreparedVideo, texts: Sequence[TextVectors]) -> tuple[Integers, Integers]:
        """Windows that the network scores, and the others by falling similarity."""
        every = np.arange(len(video.windows))
        count = self.config.coarse_windows
        if not count or count >= len(every):
            return every, every[:0]
        order = np.argsort(-self.coarse_scores(video, texts[0]), kind="stable")
        return np.sort(order[:count]), order[count:]

    @torch.no_grad()
    def coarse_scores(self, video: PreparedVideo, text: TextVectors) -> Floats:
        """Similarity of each window to the sentence, ``(M,)``: the sum over its three most similar frames.

        Raises:
            ValueError: without sentence vectors.
        """
        if video.unit is None or text.sentence is None:
            raise ValueError(
                "similarity of frames and sentence needs sentence vectors in the space of the frames"
            )
        windows = torch.from_numpy(video.windows).to(video.unit.device)
        cosines = (video.unit @ text.sentence)[None]
        scores = top_sum(cosines, windows[None, :, 0], windows.sum(1)[None])
        return scores[0].double().cpu().numpy()

    def encode(
        self, video: PreparedVideo, texts: Texts, numbers: Integers, words: Tensor | None = None
    ) -> Encoded:
        """All texts with some windows of one length, up to but without the last layer."""
        windows = video.windows[numbers]
        table = self._length(int(windows[0, 1]))
        rows = [slice(first, first + length) for first, length in windows.tolist()]
        x = torch.stack([video.projected[row] for row in rows])[None]  # (1, M, V, D)
        query = torch.stack([video.query[row] for row in rows])[None] + table.query
        return self.model.encoder.encode(texts, Windows(x, table.positions, None, query), words=words)

    def _length(self, length: int) -> _Length:
        """The positions of windows of some length and their projections, kept for the next ones."""
        found = self._lengths.get(length)
        if found is None:
            mask = torch.ones(1, 1, length, dtype=torch.bool, device=self.device)
            positions = self.model.positions(mask)
            query = self.model.encoder.first_query(positions, bias=True)
            found = self._lengths[length] = _Length(positions, query)
        return found

    def _keep(
        self,
        kept: dict[int, _Kept],
        numbers: Integers,
        scores: list[float],
        encoded: Encoded,
        tokens: Tensor,
        first: int,
    ) -> None:
        """Adds pairs `first` and following to those kept of a query, and lets go of all but the best K."""
        best = sorted(
            [(-pair.logit, number) for number, pair in kept.items()]
            + [(-score, number) for score, number in zip(scores, numbers.tolist(), strict=True)]
        )[: self.config.windows]
        wanted = {number for _, number in best}
        for number in set(kept) - wanted:
            del kept[number]
        for place, (score, number) in enumerate(zip(scores, numbers.tolist(), strict=True)):
            if number in wanted:
                row = first + place
                # copies, so that the rest of the batch can be freed
                parts = (
                    tensor[row].clone() for tensor in (tokens, encoded.states, encoded.gate, encoded.lowered)
                )
                kept[number] = _Kept(score, *parts)

    def _decode(
        self, video: PreparedVideo, kept: Sequence[dict[int, _Kept]], texts: Sequence[TextVectors]
    ) -> list[dict[int, Floats]]:
        """Per query and kept window: ``(Q, 4)`` centre, width, foreground probability and matching score."""
        found: list[dict[int, Floats]] = [{} for _ in kept]
        pairs = [(row, number) for row, windows in enumerate(kept) for number in windows]
        lengths, at_once = video.windows[[number for _, number in pairs]], self.config.window_batch_size
        ordered, memories = [], []
        for chosen in by_length(lengths, np.arange(len(pairs)), at_once):
            some = [pairs[place] for place in chosen.tolist()]
            ordered += some
            memories += self.complete([kept[row][number] for row, number in some], int(lengths[chosen[0], 1]))
        for start in range(0, len(ordered), at_once):
            some = ordered[start : start + at_once]
            values = self.decode(memories[start : start + at_once], video, some, texts)
            for (row, number), candidates in zip(some, values, strict=True):
                found[row][number] = candidates
        return found

    def complete(self, kept: Sequence[_Kept], length: int) -> list[Tensor]:
        """The memory ``(V, D)`` of each of some pairs with windows of one length."""
        positions = self._length(length).positions[0]
        encoded = Encoded(
            torch.stack([pair.state for pair in kept]),
            torch.cat([self.model.encoder.token_position.expand(1, 1, -1), positions], 1),
            None,
            torch.stack([pair.gate for pair in kept]),
            torch.stack([pair.lowered for pair in kept]),
        )
        return list(self.model.encoder.complete(encoded, torch.stack([pair.token for pair in kept])))

    def decode(
        self,
        memories: Sequence[Tensor],
        video: PreparedVideo,
        pairs: Sequence[tuple[int, int]],
        texts: Sequence[TextVectors],
    ) -> Floats:
        """Candidates ``(N, Q, 4)`` of pairs (query, window number), longest window first.

        Here windows are padded: the decoder reads its weights once for all, and padded frames cost it little.
        """
        windows = video.windows[[number for _, number in pairs]]
        places = [self._length(length).positions[0, 0] for length in windows[:, 1].tolist()]
        if windows[0, 1] == windows[-1, 1]:
            memory, mask, where = torch.stack(list(memories)), None, places[0][None]
        else:
            (memory, mask), (where, _) = padded(memories), padded(places)
        decoded = self.model.decoder(memory, where, mask)
        logits, spans = self.model.moments(Decoded(decoded.states[-1], decoded.anchors[-1]))
        spans, probability = spans.float(), logits.float().softmax(-1)[..., :1]
        matching = self._matching(video, windows, spans, [texts[row] for row, _ in pairs])
        return torch.cat([spans, probability, matching[..., None]], -1).double().cpu().numpy()

    def _matching(
        self, video: PreparedVideo, windows: Integers, spans: Tensor, texts: Sequence[TextVectors]
    ) -> Tensor:
        if video.unit is None:
            return torch.zeros_like(spans[..., 0])
        cosines = []
        for (first, length), text in zip(windows.tolist(), texts, strict=True):
            assert text.sentence is not None
            cosines.append(video.unit[first : first + length] @ text.sentence)
        lengths = torch.from_numpy(windows[:, 1]).to(spans.device)
        return matching_scores(padded(cosines)[0], spans, lengths)


def by_length(windows: Integers, numbers: Integers, at_once: int) -> Iterator[Integers]:
    """Numbers of windows in groups of one length, longest first, at most `at_once` of them together.

    Example:
        >>> [part.tolist() for part in by_length(video_windows(25, 10), np.arange(6), 3)]
        [[1, 2, 3], [4], [0, 5]]
    """
    lengths = windows[numbers, 1]
    for length in np.unique(lengths)[::-1]:
        same = numbers[lengths == length]
        for start in range(0, len(same), at_once):
            yield same[start : start + at_once]
