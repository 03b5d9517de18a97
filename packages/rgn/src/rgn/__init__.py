"""Re-Glance Networks (RGN): point-supervised video moment retrieval."""
