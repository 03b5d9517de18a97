"""Video moment retrieval: annotations, splits, features, text, temporal IoU metrics and protocols.

The modules at this level need numpy and h5py only. `vmr_train.layers` and `vmr_train` need the
`torch` extra and are never imported from here.
"""

from typing import TYPE_CHECKING, Any

from vmr_common.errors import UserError
from vmr_common.version import __version__

if TYPE_CHECKING:
    from vmr_common.types import Prediction, Query

__all__ = ["Prediction", "Query", "UserError", "__version__"]


def __getattr__(name: str) -> Any:
    # on first use, because the import of numpy is nine tenths of the start of a command that only prints its help
    if name in ("Prediction", "Query"):
        from vmr_common import types

        return getattr(types, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
