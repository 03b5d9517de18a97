"""The Cross-modal Dynamic Network: text encoder, frame attention, proposal map, fusion, dynamic map network, scorer.

Shapes: B queries, V videos, F frames, s = F / N frames per clip, D frame feature size, N clips, P valid cells of the
map, L words, E word vector size, H model width, M attention steps. Maps are kept as rows (cells first), see
`cdn.proposal_map`.
"""

from __future__ import annotations

import contextlib
from typing import NamedTuple

import torch
from torch import Tensor, nn

from cdn.config import ModelConfig
from cdn.data import QueryWords
from cdn.map_network import MapNetwork
from cdn.proposal_map import MapFusion, ProposalConvolutions, ProposalMap, valid_cells


class TextEncoder(nn.Module):
    """A unidirectional LSTM whose top state at the last word stands for the sentence (textual encoding)."""

    def __init__(self, config: ModelConfig, word_dim: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(word_dim, config.hidden, config.text_layers, batch_first=True)
        # on a processor without half precision, torch's library has no such LSTM
        mkldnn = torch.backends.mkldnn.is_available()
        self._whole_on_cpu = mkldnn and not torch.ops.mkldnn._is_mkldnn_bf16_supported()

    def forward(self, words: QueryWords) -> Tensor:
        """Sentence features ``(B, H)``; the LSTM is causal, so padding reaches no word."""
        whole = self._whole_on_cpu and words.vectors.device.type == "cpu"
        with torch.autocast("cpu", enabled=False) if whole else contextlib.nullcontext():
            states, _ = self.lstm(words.vectors)  # (B, L, H)
        return states[torch.arange(len(states), device=states.device), words.lengths - 1]


class FrameAttention(nn.Module):
    """Sequential frame attention (the figure's frame selection module): a clip as M attentive means of its frames, each
    guided by the clip's mean and by the attentive mean before it.
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
        """Clips ``(V, N, H)`` of frames ``(V, F, D)``, and attention ``(V, N, s, M)`` that sums to 1 over frames."""
        v = self.frame_projection(frames).relu().unflatten(1, (self.clips, -1))  # (V, N, s, H)
        mean = v.mean(dim=2)  # (V, N, H)
        keys = self.frame_energy(v)  # (V, N, s, h)
        p, steps, attention = torch.zeros_like(mean), [], []
        for overview in self.overviews:  # steps m = 1..M
            guide = torch.cat([overview(mean), p], dim=-1)  # [n_m; p_{m-1}], (V, N, 2H)
            guide = self.guide(guide).relu()  # g_m, (V, N, H)
            energy = (self.guide_energy(guide)[:, :, None] + keys).tanh()  # (V, N, s, h)
            energy = self.energy(energy)  # e_{m,t}, (V, N, s, 1)
            alpha = energy.softmax(dim=2)  # over the s frames of a clip
            p = (alpha * v).sum(dim=2)  # p_m = sum_t alpha_{m,t} v_t, (V, N, H)
            steps.append(p)
            attention.append(alpha)
        clips = self.clip_projection(torch.cat(steps, dim=-1)).relu()  # of [p_1; ...; p_M], (V, N, H)
        return clips, torch.cat(attention, dim=-1)


class Output(NamedTuple):
    """One pass: scores of the valid cells, logits ``(P, B)``, and the videos' frame attention ``(V, N, s, M)``."""

    logits: Tensor
    attention: Tensor


class CDN(nn.Module):
    """Cross-modal Dynamic Network for frame features of size D and word vectors of size E."""

    def __init__(self, config: ModelConfig, *, frame_dim: int, word_dim: int) -> None:
        super().__init__()
        self.config = config
        dim = config.hidden
        cells = valid_cells(config.clips, config.scales)
        self.map = ProposalMap(cells)
        self.text = TextEncoder(config, word_dim)
        self.frames = FrameAttention(config, frame_dim)
        learned = config.proposals == "conv"
        self.proposals = ProposalConvolutions(config.clips, config.scales, dim) if learned else None
        self.fusion = MapFusion(dim)
        self.map_network = MapNetwork(config, cells)
        self.scorer = nn.Linear(dim, 1)

    def encode_videos(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """The part that no query changes: projected proposals ``(P, V, H)`` and frame attention ``(V, N, s, M)``."""
        clips, attention = self.frames(frames)  # frame attention, (V, N, H)
        return self.fusion.project(self.propose(clips)), attention

    def propose(self, clips: Tensor) -> Tensor:
        """Proposal features ``(P, V, H)`` from clip features ``(V, N, H)``: "pool" or "conv" map."""
        clips = clips.transpose(0, 1)  # (N, V, H)
        return self.map.max_pool(clips) if self.proposals is None else self.proposals(clips)

    def score(self, proposals: Tensor, words: QueryWords) -> Tensor:
        """Logits ``(P, B)`` of the projected proposals ``(P, B, H)`` of each query's video."""
        sentence = self.text(words)  # q, (B, H)
        fused = self.fusion(proposals, sentence)  # (P, B, H)
        return self.scorer(self.map_network(fused, sentence))[..., 0]

    def forward(self, frames: Tensor, video_of: Tensor, words: QueryWords) -> Output:
        """One pass over a batch in which every video is there once.

        Args:
            frames: ``(V, F, D)``.
            video_of: ``(B,)`` int64 row of each query's video.
            words: The queries.
        """
        proposals, attention = self.encode_videos(frames)
        return Output(self.score(proposals.index_select(1, video_of), words), attention)
