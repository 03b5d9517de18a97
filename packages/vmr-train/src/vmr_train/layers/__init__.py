"""Layers that two or more papers share. Needs the `torch` extra."""
