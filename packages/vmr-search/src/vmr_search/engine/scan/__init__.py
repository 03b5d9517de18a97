"""The exact engine: vectors in memory-mapped shards, all of them scanned for every sentence."""
