"""Re-Glance Networks (RGN): point-supervised video moment retrieval."""

__version__ = "0.1.0"
