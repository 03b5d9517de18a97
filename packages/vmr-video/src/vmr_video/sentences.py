"""Sentences to vectors: the states of their tokens, and one vector in the space of the pictures."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vmr_common.errors import UserError, quoted
from vmr_common.features import writing
from vmr_common.features.manifest import Manifest, same_extractor
from vmr_common.features.npz import SENTENCE_KEYS
from vmr_common.version import __version__
from vmr_video.extractor import ExtractorOptions, precision_of
from vmr_video.networks.network import dtype_of, moved
from vmr_video.networks.presets import PRESETS, Preset
from vmr_video.networks.weights import device_of, lasting, load_tokenizer, pretrained

if TYPE_CHECKING:
    from torch import Tensor

logger = logging.getLogger(__name__)

TOKENS = "token_features"
BATCH = 64
"""Sentences in one call of the network."""

Floats = NDArray[np.float32]
Vectors = tuple[Floats, Floats]
"""States of the tokens ``(n, Dt)``, and the vector of the sentence ``(Da,)``."""


class SentenceEncoder:
    """Makes vectors of sentences, by the network whose pictures have vectors in the same space.

    Args:
        name: An extractor with sentences, such as ``clip-vit-b32``.
        options: `weights`, `normalise`, `device` and `precision` count.

    Raises:
        UserError: if this extractor reads no sentences, or its weights or tokenizer cannot be loaded.
    """

    def __init__(self, name: str, options: ExtractorOptions) -> None:
        self._preset, self._options = _preset(name), options
        self._weights = options.weights or str(self._preset.weights)
        model, self._hash = pretrained(self._weights, self._preset.families, tokenizer=True)
        self._tokenizer = load_tokenizer(self._weights)
        self._device = device_of(options.device)
        self._clip = model.config.model_type == "clip"
        self._text = moved(model.text_model, self._device, dtype_of(options.precision))
        self._projection = (
            moved(model.text_projection, self._device, dtype_of(options.precision)) if self._clip else None
        )
        self.limit = int(model.config.text_config.max_position_embeddings)
        self.cut = 0
        vocabulary = int(model.config.text_config.vocab_size)
        if len(self._tokenizer) > vocabulary:
            raise UserError(
                f"weights: {self._weights}: its tokenizer has {len(self._tokenizer)} words, its network {vocabulary}"
            )

    def __call__(self, texts: Sequence[str]) -> list[Vectors]:
        """The vectors of sentences; those longer than `limit` tokens are cut there, and counted in `cut`."""
        texts = [text.lower() for text in texts] if not self._clip else list(texts)
        tokens = [list(self._tokenizer(text)["input_ids"]) for text in texts]
        self.cut += sum(len(ids) > self.limit for ids in tokens)
        # the last token, which ends a sentence, stays
        tokens = [ids if len(ids) <= self.limit else ids[: self.limit - 1] + ids[-1:] for ids in tokens]
        if empty := [text for text, ids in zip(texts, tokens, strict=True) if not ids]:
            raise UserError(f"sentence {quoted(empty[0], 60)}: its tokenizer makes no token of it")
        found: list[Vectors] = []
        for start in range(0, len(tokens), BATCH):
            found += self._encoded(tokens[start : start + BATCH])
        return found

    def _encoded(self, tokens: Sequence[Sequence[int]]) -> list[Vectors]:
        import torch

        with torch.inference_mode():
            states, sentences = self._clip_states(tokens) if self._clip else self._siglip_states(tokens)
            states, sentences = states.float(), sentences.float()
            if self._options.normalise:
                states, sentences = (
                    torch.nn.functional.normalize(rows, dim=-1) for rows in (states, sentences)
                )
            rows, vectors = states.cpu().numpy(), sentences.cpu().numpy()
        return [
            (np.ascontiguousarray(rows[place, : len(ids)]), vectors[place].copy())
            for place, ids in enumerate(tokens)
        ]

    def _clip_states(self, tokens: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
        """States after the last layer norm, and the projected one of the token that ends the sentence."""
        import torch

        length = max(map(len, tokens))
        ids, mask = torch.zeros(len(tokens), length, dtype=torch.int64), torch.zeros(len(tokens), length)
        for place, row in enumerate(tokens):
            ids[place, : len(row)] = torch.tensor(row)
            mask[place, : len(row)] = 1
        ids, mask = ids.to(self._device), mask.to(self._device).long()
        states = self._text(input_ids=ids, attention_mask=mask).last_hidden_state
        ends = states[torch.arange(len(tokens), device=self._device), mask.sum(1) - 1]
        assert self._projection is not None
        return states, self._projection(ends)

    def _siglip_states(self, tokens: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
        """Likewise; this network was trained on sentences filled up to their limit, and reads the filler too."""
        import torch

        filler = self._tokenizer.pad_token_id or 0
        ids = torch.full((len(tokens), self.limit), filler, dtype=torch.int64)
        for place, row in enumerate(tokens):
            ids[place, : len(row)] = torch.tensor(row)
        found = self._text(input_ids=ids.to(self._device))
        return found.last_hidden_state, found.pooler_output

    def say_cut(self) -> None:
        """One log line that counts the sentences that were cut, if any was."""
        if self.cut:
            one = "sentence is" if self.cut == 1 else "sentences are"
            logger.warning("%d %s longer than %d tokens, and cut there", self.cut, one, self.limit)

    def manifest(self) -> Manifest:
        """The manifest of the vectors; the hash is that of the whole network, as in a manifest of its pictures."""
        return Manifest(
            extractor=self._preset.name,
            network=lasting(self._weights),
            weights_hash=self._hash,
            normalised=bool(self._options.normalise),
            precision=self._options.precision,
            creator=f"vmr-video {__version__}",
        )


def _preset(name: str) -> Preset:
    known = {preset.name: preset for preset in PRESETS if preset.text}
    name = next((preset for preset in known if same_extractor(preset, name)), name)
    if name not in known:
        raise UserError(
            f"extractor: {quoted(name, 60)} reads no sentences, expected one of {', '.join(known)}"
        )
    return known[name]


def sentences_alike(
    texts: Sequence[str], manifest: Manifest | None, *, weights: str | None = None, device: str | None = None
) -> list[Vectors]:
    """The vectors of new sentences, made as a manifest says of others, or of the pictures of the same network.

    Args:
        texts: Sentences.
        manifest: Of features of queries, or of videos beside which sentences have vectors.
        weights: Where the network's weights are here; by default where the manifest says.
        device: A torch device; None takes the best one at hand.

    Raises:
        UserError: if the network is not known, reads no sentences, or its weights are others; says both sides.
    """
    if manifest is None or manifest.extractor is None:
        raise UserError(
            "these features have no manifest that says what made them, so sentences cannot be encoded alike; make them "
            "with vmr-extract, which writes one"
        )
    encoder = SentenceEncoder(
        manifest.extractor,
        ExtractorOptions(
            weights=weights or manifest.network,
            normalise=manifest.normalised,
            device=device,
            precision=precision_of(manifest),
        ),
    )
    there, here = manifest.weights_hash, encoder.manifest().weights_hash
    if there is not None and there != here:
        raise UserError(
            f"sentences would differ in weights_hash: the model's were made with {there}, here they would be with "
            f"{here}; give the same weights by --weights (a folder or a name on a hub)"
        )
    found = encoder(texts)
    encoder.say_cut()
    rounded = np.float16 if manifest.dtype == "float16" else np.float32
    return [
        (tokens.astype(rounded).astype(np.float32), sentence.astype(rounded).astype(np.float32))
        for tokens, sentence in found
    ]


def write_sentences(
    out: Path,
    encoder: SentenceEncoder,
    queries: Sequence[tuple[str, str]],
    *,
    dtype: str = "float32",
    source: str | None = None,
    step: Callable[[int], object] = lambda count: None,
) -> int:
    """Writes an HDF5 file with a group per query (``token_features``, ``cls_features``) and the manifest, atomically.

    This is what `rgnet` reads as features of queries.

    Args:
        out: The file.
        encoder: Makes the vectors.
        queries: Pairs of id and sentence.
        dtype: ``float32`` or ``float16``.
        source: Of the manifest.
        step: Called with how many queries have just been encoded.

    Returns:
        The number of queries.

    Raises:
        UserError: if there is none, an id occurs twice or cannot name a group, or the file cannot be written.
    """
    if not queries:
        raise UserError(f"{out}: no sentence to encode")
    writing.check_dtype(out, dtype)
    width = 0
    with writing.new_file(out, dtype) as file:
        for query, (tokens, sentence) in _encoded(encoder, queries, step):
            where = f"{out}: query {query!r}"
            writing.check_name(file, query, where)
            width = tokens.shape[1]
            group = file.create_group(query)
            group.create_dataset(TOKENS, data=writing.cast(tokens, dtype, where))
            group.create_dataset(SENTENCE_KEYS[0], data=writing.cast(sentence, dtype, where))
        manifest = dataclasses.replace(encoder.manifest(), source=source)
        writing.write_manifest(file, manifest, dim=width, dtype=dtype)
    encoder.say_cut()
    return len(queries)


def _encoded(
    encoder: Callable[[Sequence[str]], list[Vectors]],
    queries: Sequence[tuple[str, str]],
    step: Callable[[int], Any],
) -> Iterator[tuple[str, Vectors]]:
    for start in range(0, len(queries), BATCH):
        part = queries[start : start + BATCH]
        yield from zip((query for query, _ in part), encoder([text for _, text in part]), strict=True)
        step(len(part))


def pairs(queries: Iterable[Any]) -> list[tuple[str, str]]:
    """Id and text of queries, each id once.

    Raises:
        UserError: if one id has two texts.
    """
    found: dict[str, str] = {}
    for query in queries:
        if found.setdefault(query.id, query.text) != query.text:
            raise UserError(
                f"query {query.id!r} has two texts, {quoted(found[query.id], 60)} and {quoted(query.text, 60)}"
            )
    return list(found.items())
