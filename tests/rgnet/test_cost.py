"""The cost of RGNet, counted by torch while it runs, against the released program."""

import numpy as np
import pytest
import torch

from factories import flops
from rgnet import attention
from rgnet.config import DEFAULT, Config, ModelConfig, SearchConfig
from rgnet.cost import released_flops
from rgnet.model import Frames, RGNet, Tokens
from rgnet.search.search import LongVideoSearch, PreparedVideo
from rgnet.windows import video_windows
from rgnet_toy import network, searcher, text, video
from vmr_train.cli.config import bundled_config

pytestmark = pytest.mark.parity

EGO4D = {"frames": 90, "tokens": 20, "frame_dim": 256, "token_dim": 512}
MAD = {"frames": 900, "tokens": 25, "frame_dim": 512, "token_dim": 512}


def build(sizes: dict[str, int]) -> RGNet:
    # tensors without memory: the products are counted, not computed
    return RGNet(ModelConfig(), frame_dim=sizes["frame_dim"], token_dim=sizes["token_dim"])


def texts(sizes: dict[str, int], count: int) -> Tokens:
    shape = (count, sizes["tokens"])
    return Tokens(torch.empty(*shape, sizes["token_dim"]), torch.ones(shape, dtype=torch.bool))


def test_the_formula_gives_the_published_costs_of_a_pair():
    assert round(released_flops(ModelConfig(), **EGO4D) / 1e9, 2) == 1.33
    assert round(released_flops(ModelConfig(), **MAD) / 1e9, 2) == 13.48


@pytest.mark.parametrize(
    ("sizes", "count", "most"), [(EGO4D, 16, 0.75), (MAD, 8, 0.84)], ids=["ego4d", "mad"]
)
def test_a_contrastive_training_pass_costs_less_than_all_pairs_in_full(sizes, count, most):
    with torch.device("meta"):
        model = build(sizes).train()
        shape = (count, sizes["frames"])
        frames = Frames(torch.empty(*shape, sizes["frame_dim"]), torch.ones(shape, dtype=torch.bool))
        counted = flops(lambda: model(texts(sizes, count), frames, contrast=True))
    ratio = counted / (count**2 * released_flops(model.config, **sizes))
    assert 0.4 < ratio <= most


def stages(
    model: RGNet, search: LongVideoSearch, prepared: PreparedVideo, tokens: Tokens
) -> dict[str, float]:
    """FLOPs of a text, of one full window up to its retrieval score, and of what decoding it takes beyond that."""
    number = np.array([1])
    seen = {}

    def score() -> None:
        seen["encoded"] = search.encode(prepared, seen["text"], number)
        seen["token"] = model.encoder.summarise(seen["encoded"])
        model.retrieval_head(seen["token"])

    def decode() -> None:
        memory = model.encoder.complete(seen["encoded"], seen["token"])
        model.moments(model.decoder(memory, search._length(memory.shape[1]).positions[0], None))

    search._length(int(prepared.windows[1, 1]))  # once per video
    cost = {"text": flops(lambda: seen.update(text=model.read_texts(tokens)))}
    return {**cost, "score": flops(score), "decode": flops(decode)}


def test_evaluating_a_film_costs_less_than_running_every_window_in_full():
    rows, kept = 33_300, 30
    with torch.device("meta"), torch.no_grad():
        model = build(MAD).eval()
        search = LongVideoSearch(model, SearchConfig(windows=kept), window=900, feature_stride=0.2)
        features = torch.empty(rows, 512)
        projected = model.video_projection(features)
        prepared = PreparedVideo(
            video_windows(rows, 900), projected, model.encoder.first_query(projected, bias=False), None
        )
        cost = stages(model, search, prepared, texts(MAD, 1))
    windows = len(prepared.windows)
    assert windows == 75
    ours = cost["text"] + windows * cost["score"] + kept * cost["decode"]
    assert ours <= 0.88 * windows * released_flops(model.config, **MAD)


def test_a_search_costs_its_stages_and_nothing_more(monkeypatch):
    monkeypatch.setattr(attention, "_has_fused", lambda query: False)  # the counter does not know that kernel
    model, features, query = network(), video(100), text(4)
    config = SearchConfig(windows=3, window_batch_size=1)
    search = searcher(model, config)
    prepared = search.prepare(features, None)
    lengths = prepared.windows[:, 1]
    with torch.no_grad():
        cost = stages(model, search, prepared, Tokens(query.tokens[None], torch.ones(1, 4, dtype=torch.bool)))
        search.search([(prepared, query)])  # positions of all lengths
        counted = flops(lambda: search.search([(prepared, query)]))
    short = int((lengths < 10).sum())
    assert short == 2
    most = cost["text"] + len(lengths) * cost["score"] + 3 * cost["decode"]
    least = cost["text"] + (len(lengths) - short) * cost["score"] + (3 - short) * cost["decode"]
    assert least <= counted <= most


def test_following_queries_do_not_pay_for_the_video():
    model, features = network(), video(400)
    search = searcher(model, SearchConfig(windows=3))
    prepared = search.prepare(features, None)
    search.search([(prepared, text(4))])
    names: list[str] = []
    hooks = [
        module.register_forward_hook(lambda *_, name=name: names.append(name))
        for name, module in model.named_modules()
        if name
    ]
    search.search([(prepared, text(3))])
    for hook in hooks:
        hook.remove()
    assert any(name.startswith("text_projection") for name in names)
    assert not any(name.startswith("video_projection") for name in names)
    assert not any(name.endswith("key_position") and "cross_attention" in name for name in names)


@pytest.mark.parametrize(
    ("name", "parameters"),
    [("ego4d-nlq-finetune", 18_431_262), ("mad", 18_498_590), ("ego4d-nlq", 18_562_846)],
)
def test_the_published_sizes_have_the_published_number_of_weights(name, parameters):
    config = bundled_config("rgnet", Config, name)
    with torch.device("meta"):
        model = RGNet(
            config.model,
            frame_dim=config.data.features.dim,
            token_dim=config.data.queries.token_dim,
            sentence_dim=config.data.queries.sentence_dim or 0,
        )
    d = config.model.hidden
    # what the released model holds beside and never uses: text positions, a saliency head, the last refinement
    unused = config.data.max_tokens * d + 2 * d + (d + 1) + (2 * d * (d + 1) + 2 * (d + 1))
    assert sum(parameter.numel() for parameter in model.parameters()) + unused == parameters


def test_long_shapes_are_what_is_taken_without_a_configuration():
    assert bundled_config("rgnet", Config, DEFAULT).name == DEFAULT == "shapes-long"
