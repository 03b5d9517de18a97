"""Damaged files of every kind that the commands read, and what watches the commands while they read them.

`benchmarks/fuzz.py` is the program. A module per kind of file holds valid ones and ``make``, which damages one of
them; `damage` has what all kinds need, `samples` the valid files that only commands can make, `watch` runs the cases.
"""
