"""The commands ``vmr-extract`` and ``vmr-video``."""
