"""Answers to watch: a page with the video, a film strip, cut files, markers for editors."""
