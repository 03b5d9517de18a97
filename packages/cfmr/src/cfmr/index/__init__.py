"""The index of a video collection: set once, query many (an extension of the paper, see docs/cfmr.md)."""
