"""Features: stores, file formats, manifests, pooling and writing."""
