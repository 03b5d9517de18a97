"""Re-Glance Networks (RGN): point-supervised video moment retrieval.

Example:
    >>> import rgn
    >>> rgn.load_config("shapes", {"train.epochs": 3}).train.epochs
    3
"""

from typing import TYPE_CHECKING

from vmr_common.lazy import lazy_names

if TYPE_CHECKING:
    from rgn import losses
    from rgn.api import load, load_config, train
    from rgn.config import Config
    from rgn.method import RGNMethod
    from rgn.model import RGN

__all__ = ["RGN", "Config", "RGNMethod", "load", "load_config", "losses", "train"]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "rgn.api": "load load_config train",
        "rgn.config": "Config",
        "rgn.losses": "losses",
        "rgn.method": "RGNMethod",
        "rgn.model": "RGN",
    },
)
