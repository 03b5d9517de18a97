"""The Cross-modal Dynamic Network: frame attention, proposal map, fusion, dynamic map network.

Shapes: B queries, V videos, F frames, s = F / N frames per clip, D frame feature size, N clips, P valid cells of the
map, L words, E word vector size, H model width, M attention steps. Maps are kept as rows (cells first), see
`vmr_train.layers.proposal_map`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from cdn.config import ModelConfig
from cdn.map_network import MapNetwork
from vmr_train.layers.fusion import MapFusion
from vmr_train.layers.proposal_map import ProposalConvolutions, ProposalMap, valid_cells
from vmr_train.layers.sentence import LastWordLSTM
from vmr_train.map_supervised import QueryWords


class FrameAttention(nn.Module):
    """A clip as what M guided looks at its frames saw, each guided by the one before (frame selection module).

    Args:
        config: Sizes.
        frame_dim: Frame feature size D.
    """

    def __init__(self, config: ModelConfig, frame_dim: int) -> None:
        super().__init__()
        dim, hidden = config.hidden, config.attention_hidden
        self.clips = config.clips
        self.frame_projection = nn.Linear(frame_dim, dim)
        self.overviews = nn.ModuleList(nn.Linear(dim, dim) for _ in range(config.attention_steps))
        self.guide = nn.Linear(2 * dim, dim)
        self.guide_energy = nn.Linear(dim, hidden)
        self.frame_energy = nn.Linear(dim, hidden)
        self.energy = nn.Linear(hidden, 1)
        self.clip_projection = nn.Linear(config.attention_steps * dim, dim)

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Clip features ``(V, N, H)`` and the attention ``(V, N, s, M)``, which sums to 1 over frames.

        Args:
            frames: ``(V, F, D)``.
        """
        values = self.frame_projection(frames).relu().unflatten(1, (self.clips, -1))  # (V, N, s, H)
        mean = values.mean(dim=2)  # (V, N, H)
        keys = self.frame_energy(values)  # (V, N, s, h)
        seen, steps, attention = torch.zeros_like(mean), [], []
        for overview in self.overviews:
            guide = self.guide(torch.cat([overview(mean), seen], dim=-1)).relu()  # (V, N, H)
            energy = self.energy((self.guide_energy(guide)[:, :, None] + keys).tanh())  # (V, N, s, 1)
            weights = energy.softmax(dim=2)
            seen = (weights * values).sum(dim=2)  # (V, N, H)
            steps.append(seen)
            attention.append(weights)
        clips = self.clip_projection(torch.cat(steps, dim=-1)).relu()
        return clips, torch.cat(attention, dim=-1)


@dataclass(frozen=True)
class VideoEncoding:
    """What of V videos no query changes.

    Attributes:
        proposals: ``(P, V, H)`` projected proposal features.
        attention: ``(V, N, s, M)`` frame attention.
    """

    proposals: Tensor
    attention: Tensor


@dataclass(frozen=True)
class Output:
    """One pass.

    Attributes:
        logits: ``(P, B)`` scores of the valid cells.
        attention: ``(V, N, s, M)`` frame attention of the videos.
    """

    logits: Tensor
    attention: Tensor


class CDN(nn.Module):
    """Cross-modal Dynamic Network.

    Args:
        config: Sizes.
        frame_dim: Frame feature size D.
        word_dim: Word vector size E.
    """

    def __init__(self, config: ModelConfig, *, frame_dim: int, word_dim: int) -> None:
        super().__init__()
        self.config = config
        dim = config.hidden
        cells = valid_cells(config.clips, config.scales)
        self.map = ProposalMap(cells)
        self.text = LastWordLSTM(word_dim, dim, config.text_layers)
        self.frames = FrameAttention(config, frame_dim)
        learned = config.proposals == "conv"
        self.proposals = ProposalConvolutions(config.clips, config.scales, dim) if learned else None
        self.fusion = MapFusion(dim, dim, dim)
        self.map_network = MapNetwork(config, cells)
        self.scorer = nn.Linear(dim, 1)

    def propose(self, clips: Tensor) -> Tensor:
        """Proposal features ``(P, V, H)`` from clip features ``(V, N, H)``."""
        clips = clips.transpose(0, 1)  # (N, V, H)
        return self.map.max_pool(clips) if self.proposals is None else self.proposals(clips)

    def encode_videos(self, frames: Tensor) -> VideoEncoding:
        """Everything before the query comes in, of frames ``(V, F, D)``."""
        clips, attention = self.frames(frames)
        return VideoEncoding(self.fusion.project(self.propose(clips)), attention)

    def score(self, proposals: Tensor, words: QueryWords) -> Tensor:
        """Logits ``(P, B)`` of one video's proposals ``(P, B, H)`` for each query."""
        sentence = self.text(words.vectors, words.lengths)  # (B, H)
        return self.scorer(self.map_network(self.fusion(proposals, sentence), sentence))[..., 0]

    def forward(self, frames: Tensor, video_of: Tensor, words: QueryWords) -> Output:
        """One pass over a batch in which every video is there once.

        Args:
            frames: ``(V, F, D)``.
            video_of: ``(B,)`` int64 row of each query's video.
            words: The queries.
        """
        videos = self.encode_videos(frames)
        logits = self.score(videos.proposals.index_select(1, video_of), words)
        return Output(logits, videos.attention)
