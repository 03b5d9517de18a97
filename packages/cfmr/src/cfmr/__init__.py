"""Cheaper and Faster Moment Retrieval (CFMR): point-supervised, with an index of videos that queries scan."""
