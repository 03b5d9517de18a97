"""Train a model, ask it for moments, and save what it saw as pages.

    python examples/train_and_predict.py [CONFIG] [SENTENCE]

CONFIG is a bundled configuration of RGN or a YAML file (default: shapes, the embedded data set; minutes on a laptop).
Any of the five packages can stand in the place of `rgn`; `rgnet` has `shapes-long` as its default.
"""

import sys

import rgn

config = sys.argv[1] if len(sys.argv) > 1 else "shapes"
sentence = sys.argv[2] if len(sys.argv) > 2 else "the orange triangle slides down"

# the same run as `rgn-train --name example`: checkpoints, metrics and a report under runs/rgn/example
run = rgn.train(config, overwrite=True, name="example")
print(run)
print("report:", run.report)

# the best weights, and the data that they were trained on
model = rgn.load(run)
print(model)

# one sentence in one video; predict also takes an array (T, D) or the path of a feature file
found = model.predict("test-0000", sentence, k=3)
print(found)
print(f"best: {found[0].start:.1f} to {found[0].end:.1f} s, score {found[0].score:.3f}")

# several sentences at once
for answer in model.predict("test-0000", [sentence, "the blue square shrinks"], k=1):
    print(answer.prediction.text, answer.moments.round(1).tolist())

# what the paper can show: RGN's candidate Gaussians with the reconstruction loss that ranks them
seen = model.explain("test-0000", sentence)
print(seen)

# a notebook displays these by itself
found.show().save("moments.html")
seen.show().save("candidates.html")
