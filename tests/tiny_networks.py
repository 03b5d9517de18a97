"""Networks of random weights, a fraction of a megabyte each, saved as the published ones are."""

import os
import string
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"  # before transformers is imported

import torch
import transformers as hf
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from vmr_video.networks.weights import quiet

SIZE = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
LETTERS = [*string.ascii_lowercase, *string.digits, *".,?!'-"]


def clip(folder: Path, seed: int = 0) -> Path:
    """A CLIP of pictures of 32 x 32, vectors 16 wide, and sentences of at most 24 tokens, with its tokenizer."""
    words = [*LETTERS, *(f"{letter}</w>" for letter in LETTERS), "<|startoftext|>", "<|endoftext|>"]
    text = {"vocab_size": len(words), "max_position_embeddings": 24, "bos_token_id": len(words) - 2}
    config = hf.CLIPConfig(
        text_config=SIZE | text | {"eos_token_id": len(words) - 1, "projection_dim": 16},
        vision_config=SIZE | {"image_size": 32, "patch_size": 8, "projection_dim": 16},
        projection_dim=16,
    )
    _save(hf.CLIPModel, config, folder, seed)
    hf.CLIPTokenizer({word: n for n, word in enumerate(words)}, []).save_pretrained(folder)
    return folder


def siglip(folder: Path, seed: int = 0) -> Path:
    """A SigLIP likewise, of sentences of 16 tokens."""
    text = {"vocab_size": len(LETTERS) + 3, "max_position_embeddings": 16, "projection_size": 32}
    config = hf.SiglipConfig(
        text_config=SIZE | text, vision_config=SIZE | {"image_size": 32, "patch_size": 8}
    )
    _save(hf.SiglipModel, config, folder, seed)
    words = {word: n for n, word in enumerate(["<pad>", "<eos>", "<unk>", *LETTERS])}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A <eos>", special_tokens=[("<eos>", words["<eos>"])]
    )
    hf.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>"
    ).save_pretrained(folder)
    return folder


def dinov2(folder: Path) -> Path:
    """A DINOv2 that was trained on pictures of 28 x 28."""
    sizes = {name: value for name, value in SIZE.items() if name != "intermediate_size"}
    return _save(hf.Dinov2Model, hf.Dinov2Config(**sizes, image_size=28, patch_size=14), folder)


def dinov3(folder: Path) -> Path:
    """A DINOv3."""
    return _save(hf.DINOv3ViTModel, hf.DINOv3ViTConfig(**SIZE, image_size=32, patch_size=16), folder)


def videomae(folder: Path) -> Path:
    """A VideoMAE on clips of 4 frames."""
    config = hf.VideoMAEConfig(**SIZE, image_size=32, patch_size=16, num_frames=4, tubelet_size=2)
    return _save(hf.VideoMAEModel, config, folder)


def vjepa2(folder: Path) -> Path:
    """A V-JEPA 2 on clips of 4 frames."""
    sizes = {name: value for name, value in SIZE.items() if name != "intermediate_size"} | {"hidden_size": 48}
    predictor = {f"pred_{name}": value for name, value in sizes.items()}
    config = hf.VJEPA2Config(
        **sizes, **predictor, crop_size=32, patch_size=16, frames_per_clip=4, tubelet_size=2
    )
    return _save(hf.VJEPA2Model, config, folder)


def _save(kind: type, config: object, folder: Path, seed: int = 0) -> Path:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = kind(config)
        for (
            name,
            tensor,
        ) in model.named_parameters():  # the published start is so small that all rows are alike
            if tensor.ndim > 1 and "layer_norm" not in name:
                torch.nn.init.normal_(tensor, std=0.2)
    with quiet():
        model.save_pretrained(folder)
    return folder
