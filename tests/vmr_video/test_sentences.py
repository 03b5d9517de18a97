"""Vectors of sentences against straight calls, and in the file that rgnet reads."""

import functools
import json
import logging

import numpy as np
import pytest
import torch
import transformers as hf

import tiny_networks
from rgnet.query_features.store import QueryFeatureStore
from vmr_common.errors import UserError
from vmr_common.features.manifest import Manifest
from vmr_video.cli.extract import main
from vmr_video.extractor import ExtractorOptions
from vmr_video.sentences import SentenceEncoder, sentences_alike

TEXTS = [
    "a dog runs",
    "The man, slowly, opens a door.",
    "",
    "a b c d e f g h i j k l m n o p q r s t u v w x y z",
]


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return tiny_networks.clip(tmp_path_factory.mktemp("network") / "clip")


@pytest.fixture
def extract(answer, clip):
    return functools.partial(answer, main, "--weights", clip, "--device", "cpu")


def encoder(folder, name="clip-vit-b32", **options) -> SentenceEncoder:
    return SentenceEncoder(name, ExtractorOptions(weights=str(folder), device="cpu", **options))


def test_clip_gives_the_states_of_a_straight_call(clip):
    tokenizer, model = hf.CLIPTokenizer.from_pretrained(clip), hf.CLIPModel.from_pretrained(clip).eval()
    for text, (tokens, sentence) in zip(TEXTS, encoder(clip)(TEXTS), strict=True):
        inputs = tokenizer(text, return_tensors="pt", truncation=True, max_length=24)
        with torch.no_grad():
            expected = model.get_text_features(**inputs)
        assert np.abs(tokens - expected.last_hidden_state[0].numpy()).max() < 1e-5  # start to end token
        assert np.abs(sentence - expected.pooler_output[0].numpy()).max() < 1e-5
    (tokens, sentence), *_ = encoder(clip, normalise=True)(TEXTS)
    assert np.allclose(np.linalg.norm(tokens, axis=1), 1, atol=1e-6)
    assert np.isclose(np.linalg.norm(sentence), 1, atol=1e-6)


def test_siglip_likewise_on_sentences_filled_up_and_in_lower_case(tmp_path):
    folder = tiny_networks.siglip(tmp_path / "siglip")
    tokenizer, model = hf.AutoTokenizer.from_pretrained(folder), hf.SiglipModel.from_pretrained(folder).eval()
    for text, (tokens, sentence) in zip(TEXTS, encoder(folder, "siglip2-b16")(TEXTS), strict=True):
        ids = tokenizer(text.lower())["input_ids"]
        ids = ids if len(ids) <= 16 else ids[:15] + ids[-1:]
        filled = torch.tensor([ids + [tokenizer.pad_token_id] * (16 - len(ids))])
        with torch.no_grad():
            expected = model.get_text_features(input_ids=filled)
        assert np.abs(tokens - expected.last_hidden_state[0, : len(ids)].numpy()).max() < 1e-5
        assert np.abs(sentence - expected.pooler_output[0].numpy()).max() < 1e-5


def test_a_file_holds_what_rgnet_reads_and_what_makes_new_sentences_alike(extract, clip, tmp_path, caplog):
    queries = tmp_path / "test.jsonl"
    rows = [
        {"qid": n, "query": text or "nothing", "vid": "v", "duration": 9, "relevant_windows": [[0, 3]]}
        for n, text in enumerate(TEXTS)
    ]
    queries.write_text("".join(json.dumps(row) + "\n" for row in rows))
    out = tmp_path / "text.h5"
    with caplog.at_level(logging.WARNING):
        status, said, _ = extract("--annotations", queries, "--out", out, "--dtype", "float16")
    assert (status, said) == (0, f"{out}: token and sentence vectors of 4 queries\n")
    assert "2 sentences are longer than 24 tokens, and cut there" in caplog.text
    with QueryFeatureStore(out, token_dim=32, sentence_dim=16) as store:
        assert store.queries() == ["0", "1", "2", "3"]
        found = store.manifest
        assert (found.extractor, found.dim, found.dtype, found.source) == (
            "clip-vit-b32",
            32,
            "float16",
            str(queries),
        )
        for n, (tokens, sentence) in enumerate(sentences_alike([row["query"] for row in rows], found)):
            assert np.array_equal(tokens, store[str(n)].tokens)
            assert np.array_equal(sentence, store[str(n)].sentence)
    assert "--overwrite" in extract("--annotations", queries, "--out", out)[2]
    other = tiny_networks.clip(tmp_path / "other", seed=1)
    with pytest.raises(
        UserError, match=r"differ in weights_hash: the model's were made with .* here they would be"
    ):
        sentences_alike(["a"], found, weights=str(other))
    with pytest.raises(UserError, match="no manifest"):
        sentences_alike(["a"], None)
    with pytest.raises(UserError, match="reads no sentences, expected one of clip-vit-b32"):
        sentences_alike(["a"], Manifest(extractor="dinov2-b14"))
    assert extract(tmp_path, "--annotations", queries, "--out", out)[0] == 2
