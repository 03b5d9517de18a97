"""The words of the reports, one line each."""

from __future__ import annotations

GLOSSARY = {
    "IoU": "Overlap of two moments: the time in both divided by the time in either; 1 is the same moment.",
    "R@1, IoU 0.5": "Share of queries whose first prediction has an IoU of 0.5 or more; R@5: one of the first five.",
    "mIoU": "Mean IoU of the first prediction over all queries.",
    "protocol": "The rules of an evaluation: which overlap counts, what is suppressed or rounded.",
    "chance": "Moments drawn at random.",
    "bias": "The moments that fit the training split best: what can be reached without video or sentence.",
    "quirks": "released: computes as the authors' code does, oddities included; fixed: without them.",
    "glance": "One annotated time inside the moment, in place of its start and end.",
    "R@1, glance": "Share of queries whose first prediction holds the glance; for splits that have no true moments.",
    "distance": "From the middle of the first prediction to the glance, as a share of the video; lower is better.",
    "re-glance": "RGN: a Gaussian around the glance, as wide as the model takes the moment to be.",
    "95 % interval": "Where the figure of another draw of test videos of this kind would lie, 95 times in 100.",
    "presence": "Is what a sentence says in the video at all? Measured with sentences asked of other videos.",
    "AUROC": "How often a sentence scores higher in its own video than one in another video; 0.5 is chance.",
    "selected epoch": "The one whose weights were kept.",
}
