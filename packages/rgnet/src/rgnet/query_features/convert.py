"""Query features of any layout into one HDF5 file."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path

from rgnet.query_features.store import QueryFeatureStore
from rgnet.query_features.writing import write_query_features
from vmr_common.features.conversion import Conversion
from vmr_common.features.manifest import Manifest

PART_SIZE = 4096  # queries between two points from which a conversion can go on


def convert_query_features(
    store: QueryFeatureStore,
    out: str | Path,
    manifest: Manifest,
    *,
    dtype: str = "float32",
    queries: Sequence[str] | None = None,
    step: Callable[[int], object] | None = None,
) -> int:
    """Writes the features of queries into one HDF5 file (see `write_query_features`), as `convert_features` does.

    Args:
        store: Where features come from, of any layout.
        out: The file.
        manifest: What made the features.
        dtype: ``float32`` or ``float16``.
        queries: Ids of the queries, by default all.
        step: Called with the number of queries that were just finished.

    Returns:
        The number of queries written.

    Raises:
        UserError: if there is no query, one cannot be read, or the file cannot be written.
    """
    write = functools.partial(write_query_features, manifest=manifest, dtype=dtype)
    conversion = Conversion("query", Path(out), dtype, write, QueryFeatureStore, PART_SIZE, step)
    return conversion.run(store, store.paths, store.queries() if queries is None else queries)
