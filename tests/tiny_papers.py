"""A configuration of every paper for the small Shapes, with a network that trains in a second."""

from vmr_shapes import ShapesSpec

SPEC = ShapesSpec(train=16, val=4, test=6, duration=(6.0, 9.0), size=40, feature_dim=16, word_dim=12)
DATA = "shapes/{}.jsonl"
FRAMES = {"path": "shapes/features.h5", "dim": 16}
MAP = {"hidden": 12, "text_layers": 1, "clips": 8, "scales": [8], "layers": 2}
OWN = {
    "rgn": {
        "data": {"features": FRAMES, "clips": 8, "word_vectors": "shapes/words.txt"},
        "model": {"hidden": 16, "heads": 2, "video_layers": 1, "text_layers": 1, "candidates": 4},
    },
    "cfmr": {
        "data": {"features": FRAMES, "clips": 32, "word_vectors": "shapes/words.txt"},
        "model": {
            "hidden": 16,
            "heads": 2,
            "encoder_layers": 1,
            "reconstructor_layers": 1,
            "centres": 4,
            "widths": 2,
        },
    },
    "cdn": {
        "data": {"features": FRAMES, "frames": 16, "word_vectors": "shapes/words.txt"},
        "model": {**MAP, "attention_steps": 2, "attention_hidden": 8, "dynamic_layers": [0], "kernels": 2},
    },
    "leorn": {
        "data": {
            "objects": {"path": "objects.h5", "dim": 59, "objects": 5},
            "frames": 16,
            "word_vectors": "shapes/words.txt",
        },
        "model": {**MAP, "blocks": 2, "feed_forward": 16, "kernel": 3},
    },
    "rgnet": {
        "data": {
            "features": FRAMES,
            "feature_stride": 0.5,
            "window": 6,
            "queries": {"word_vectors": "shapes/words.txt", "token_dim": 12},
        },
        "model": {
            "hidden": 16,
            "heads": 2,
            "inner": 16,
            "cross_layers": 1,
            "self_layers": 1,
            "decoder_layers": 2,
        },
        "search": {"windows": 3},
    },
}


def default_of(paper: str) -> str:
    return "shapes-long" if paper == "rgnet" else "shapes"


def tiny(paper: str) -> dict:
    splits = {"train": "train", "validation": "val", "test": "test"}
    own = OWN[paper]
    return {
        "name": default_of(paper),
        **own,
        "data": {
            **own["data"],
            "splits": {part: {"annotations": DATA.format(n)} for part, n in splits.items()},
        },
        "train": {"epochs": 1, "global_batch": 8, "device": "cpu"},
    }
