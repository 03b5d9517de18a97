"""RGNet: moments in videos of minutes to hours, by one network that retrieves windows and grounds in them.

Example:
    >>> import rgnet
    >>> rgnet.load_config("shapes-long", {"train.epochs": 3}).train.epochs
    3
"""

from typing import TYPE_CHECKING

from vmr_common.lazy import lazy_names

if TYPE_CHECKING:
    from rgnet import losses
    from rgnet.api import load, load_config, train
    from rgnet.config import Config
    from rgnet.method import RGNetMethod
    from rgnet.model import RGNet

__all__ = ["Config", "RGNet", "RGNetMethod", "load", "load_config", "losses", "train"]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "rgnet.api": "load load_config train",
        "rgnet.config": "Config",
        "rgnet.losses": "losses",
        "rgnet.method": "RGNetMethod",
        "rgnet.model": "RGNet",
    },
)
