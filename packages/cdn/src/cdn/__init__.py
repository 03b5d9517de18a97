"""Cross-modal Dynamic Networks (CDN): fully supervised video moment retrieval on a 2D proposal map.

Example:
    >>> import cdn
    >>> cdn.load_config("shapes", {"train.epochs": 3}).train.epochs
    3
"""

from typing import TYPE_CHECKING

from vmr_common.lazy import lazy_names

if TYPE_CHECKING:
    from cdn import losses
    from cdn.api import load, load_config, train
    from cdn.config import Config
    from cdn.method import CDNMethod
    from cdn.model import CDN

__all__ = ["CDN", "CDNMethod", "Config", "load", "load_config", "losses", "train"]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "cdn.api": "load load_config train",
        "cdn.config": "Config",
        "cdn.losses": "losses",
        "cdn.method": "CDNMethod",
        "cdn.model": "CDN",
    },
)
