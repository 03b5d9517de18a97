"""Splits: readers of the published annotation formats, policies for irregular records, the registry, loading."""
