"""Functions that the papers' commands call: configuration files and options, evaluation, reports."""
