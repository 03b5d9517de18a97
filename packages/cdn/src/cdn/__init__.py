"""Cross-modal Dynamic Networks (CDN): fully supervised video moment retrieval on a 2D proposal map."""
