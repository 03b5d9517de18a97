"""The command ``vmr-search``."""
