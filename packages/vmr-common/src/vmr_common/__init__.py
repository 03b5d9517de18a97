"""Video moment retrieval: annotations, splits, features, text, temporal IoU metrics and protocols.

The modules at this level need numpy and h5py only. `vmr_common.nn` and `vmr_common.training` need the
`torch` extra and are never imported from here.
"""

from vmr_common.errors import UserError
from vmr_common.records import Prediction, Query

__version__ = "0.1.0"

__all__ = ["Prediction", "Query", "UserError", "__version__"]
