"""Your own videos: features, annotations and word vectors in files of your own, a model trained on them.

    python examples/own_features.py [FOLDER] [EPOCHS]

What your feature extractor, annotators and GloVe file would give is invented here: a video is noise, and an action is
one direction of the feature space for some seconds. Everything is written under FOLDER (default: own).
"""

import json
import sys
from pathlib import Path

import numpy as np

import cdn
from vmr_common import FeatureStore, Manifest, write_features

folder = Path(sys.argv[1] if len(sys.argv) > 1 else "own")
epochs = int(sys.argv[2]) if len(sys.argv) > 2 else 8
folder.mkdir(parents=True, exist_ok=True)

DIM, STRIDE = 32, 0.5  # feature width, seconds per row
ACTIONS = ["a dog barks", "somebody opens the door", "the kettle boils"]
rng = np.random.default_rng(0)
patterns = rng.normal(size=(len(ACTIONS), DIM))


def video(seconds: float) -> tuple[np.ndarray, list[tuple[str, float, float]]]:
    """Features (T, D) of a video, and its actions with start and end."""
    rows = rng.normal(size=(int(seconds / STRIDE), DIM))
    starts = np.sort(rng.uniform(0, seconds - 6, len(ACTIONS)))
    events = []
    for action, start in zip(rng.permutation(len(ACTIONS)), starts, strict=True):
        end = start + rng.uniform(3, 6)
        rows[int(start / STRIDE) : int(end / STRIDE)] += 2 * patterns[action]
        events.append((ACTIONS[action], round(float(start), 2), round(float(end), 2)))
    return rows.astype(np.float32), events


# features: one array per video; the manifest says what made them, and the stride gives lengths to predict
# annotations: a JSON line per query, in any of the formats that docs/data.md lists
features = {}
for part, count in (("train", 60), ("test", 20)):
    lines = []
    for number in range(count):
        name = f"{part}-{number:03d}"
        features[name], events = video(30.0)
        for n, (text, start, end) in enumerate(events):
            line = {"qid": f"{name}-{n}", "vid": name, "query": text, "duration": 30.0}
            lines.append(json.dumps({**line, "relevant_windows": [[start, end]]}))
    (folder / f"{part}.jsonl").write_text("\n".join(lines) + "\n")
write_features(folder / "features.h5", features.items(), Manifest(extractor="example", stride_s=STRIDE))
words = sorted({word for action in ACTIONS for word in action.split()})
(folder / "words.txt").write_text("".join(f"{w} {' '.join(map(str, rng.normal(size=16)))}\n" for w in words))

# the sizes of the Shapes configuration, with data of our own; paths are relative to the data root
config = cdn.load_config(
    "shapes",
    {
        "name": "own",
        "data.splits.train": {"split": None, "annotations": "train.jsonl"},
        "data.splits.test": {"split": None, "annotations": "test.jsonl"},
        "data.splits.validation": None,  # a tenth of the training videos is held out instead
        "data.features": {"path": "features.h5", "dim": DIM},
        "data.word_vectors": "words.txt",
        "train.epochs": epochs,
    },
)
print(cdn.train(config, data_root=folder, overwrite=True))

# a video that is in no file: its array is enough
model = cdn.load("runs/cdn/own")
rows, events = video(30.0)
print(model.predict(rows, events[0][0], k=2), "\ntruth:", events[0])
print(len(FeatureStore(folder / "features.h5").videos()), "videos in the feature file")
