"""Searching a long video: windows ranked, moments grounded in the best of them."""
