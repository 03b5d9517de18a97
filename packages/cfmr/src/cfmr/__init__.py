"""Cheaper and Faster Moment Retrieval (CFMR): point-supervised, with an index of videos that queries scan.

Example:
    >>> import cfmr
    >>> cfmr.load_config("shapes", {"train.epochs": 3}).train.epochs
    3
"""

from typing import TYPE_CHECKING

from vmr_common.lazy import lazy_names

if TYPE_CHECKING:
    from cfmr import losses
    from cfmr.api import load, load_config, train
    from cfmr.config import Config
    from cfmr.method import CFMRMethod
    from cfmr.model import CFMR

__all__ = ["CFMR", "CFMRMethod", "Config", "load", "load_config", "losses", "train"]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "cfmr.api": "load load_config train",
        "cfmr.config": "Config",
        "cfmr.losses": "losses",
        "cfmr.method": "CFMRMethod",
        "cfmr.model": "CFMR",
    },
)
