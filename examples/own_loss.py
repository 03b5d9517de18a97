"""A loss of your own in ten lines: one more term in RGN's objective.

    python examples/own_loss.py [CONFIG]

A method looks its loss up in its module at every step, so a function in its place is all that is needed. To keep a
term for good, write it into `rgn/losses.py` and give it a weight in `rgn/config.py`: then checkpoints remember it.
"""

import sys

import rgn

original, weight = rgn.losses.total, 0.1


def total(proposals, compared, glance, config):
    """RGN's terms, and the mean width of the candidates: short answers are preferred."""
    terms = original(proposals, compared, glance, config)
    terms["short"] = weight * proposals.width.mean()
    return {**terms, "total": terms["total"] + terms["short"]}


rgn.losses.total = total

config = sys.argv[1] if len(sys.argv) > 1 else "shapes"
run = rgn.train(config, overwrite=True, name="short-answers")
print(run)
print("the new term stands in", run.folder / "metrics.jsonl", "beside the others")
