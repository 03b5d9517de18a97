"""Writing features of queries as one HDF5 file."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from rgnet.query_features.backends import TOKENS
from rgnet.query_features.store import QueryVectors
from vmr_common.errors import UserError
from vmr_common.features import writing as h5_writing
from vmr_common.features.checks import Features, check_layout
from vmr_common.features.manifest import Manifest
from vmr_common.features.npz import SENTENCE_KEYS


def write_query_features(
    path: str | Path, items: Iterable[tuple[str, QueryVectors]], manifest: Manifest, dtype: str = "float32"
) -> int:
    """Writes one HDF5 file with a group per query (``token_features``, ``cls_features``) and the manifest, atomically.

    Args:
        path: The file; an existing one is replaced when all items are written.
        items: (query id, vectors) pairs; only one is held at a time.
        manifest: What made the vectors; `dim` (of the tokens) and `dtype` are filled in.
        dtype: ``float32`` or ``float16``.

    Returns:
        The number of queries written.

    Raises:
        UserError: if the file cannot be written, a query occurs twice or cannot name a group, token widths differ, or a
            value does not fit into float16.
    """
    count, width = 0, None
    with h5_writing.new_file(path, dtype) as file:
        for query, vectors in items:
            where = f"{path}: query {query!r}"
            h5_writing.check_name(file, query, where)
            if width is not None and vectors.tokens.shape[1] != width:
                raise UserError(f"{where} has width {vectors.tokens.shape[1]}, the others have {width}")
            width = int(vectors.tokens.shape[1])
            group = file.create_group(query)
            group.create_dataset(TOKENS, data=_stored(vectors.tokens, dtype, where))
            if vectors.sentence is not None:
                group.create_dataset(SENTENCE_KEYS[0], data=_stored(vectors.sentence[None], dtype, where)[0])
            count += 1
        h5_writing.write_manifest(file, manifest, dim=width, dtype=dtype)
    return count


def _stored(values: Features, dtype: str, where: str) -> NDArray[Any]:
    check_layout(values.shape, values.dtype, where)
    return h5_writing.cast(values, dtype, where)
