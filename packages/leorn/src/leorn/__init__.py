"""Language-enhanced Object Reasoning Networks (LEORN): moments from objects, language and a 2D map of proposals.

Example:
    >>> import leorn
    >>> leorn.load_config("shapes", {"train.epochs": 3}).train.epochs
    3
"""

from typing import TYPE_CHECKING

from vmr_common.lazy import lazy_names

if TYPE_CHECKING:
    from leorn import losses
    from leorn.api import load, load_config, train
    from leorn.config import Config
    from leorn.method import LEORNMethod
    from leorn.model import LEORN

__all__ = ["LEORN", "Config", "LEORNMethod", "load", "load_config", "losses", "train"]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "leorn.api": "load load_config train",
        "leorn.config": "Config",
        "leorn.losses": "losses",
        "leorn.method": "LEORNMethod",
        "leorn.model": "LEORN",
    },
)
