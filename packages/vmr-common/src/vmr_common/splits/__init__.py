"""Annotations: readers, policies, splits. Whatever is malformed is a `UserError` that names file and record."""
