r"""What a sentence costs over an index: the sentence, the retrieval, the grounding, and the whole request.

    OMP_NUM_THREADS=1 uv run python benchmarks/search_latency.py --checkpoint runs/cfmr/shapes-corpus \
        --ground runs/rgn/shapes

An index of all Shapes videos in a temporary folder, and the sentences of its test split one by one, with one thread of
torch and NumPy. Wall time is by the clock, which a busy machine lengthens; processor time is that of the process.
The first sentences are not counted (`--warm`). Results go to ``benchmarks/results/search-latency-<processor>.csv``.
"""

import argparse
import itertools
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from recording import measured_here, write_rows
from timing import Seconds, timed

from vmr_common.features.store import FeatureStore
from vmr_common.splits.load import data_root, load_split
from vmr_search.building import extend
from vmr_search.folder import create
from vmr_search.opening import search_of
from vmr_search.retriever import open_retriever


def recorded(times: list[Seconds], function: Callable) -> Callable:
    """The function, which adds its seconds by the clock and of the processor to `times`."""

    def called(*args, **kwargs):
        found, seconds = timed(lambda: function(*args, **kwargs))
        times.append(seconds)
        return found

    return called


def main() -> None:
    """Measures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--ground", type=Path, nargs="*", default=[])
    parser.add_argument("--look-into", type=int, nargs="+", default=[20])
    parser.add_argument("--sentences", type=int, default=200)
    parser.add_argument("--warm", type=int, default=5)
    parser.add_argument("--data-root")
    given = parser.parse_args()
    torch.set_num_threads(1)
    root = data_root(given.data_root)
    queries = load_split("shapes/test", root).queries
    texts = list(dict.fromkeys(query.text for query in queries))[: given.sentences]
    store = FeatureStore(root / "shapes/features.h5")
    seconds = {video: store.length(video) * store.manifest.stride_s for video in store.videos()}
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        index = create(Path(folder) / "index", open_retriever("cfmr", given.checkpoint, {}, "cpu"))
        begin = time.process_time()
        extend(index, store, seconds)
        built = time.process_time() - begin
        print(f"{len(index.engine)} videos indexed in {built:.1f} s of the processor")
        for ground, look_into in itertools.product([None, *given.ground], given.look_into):
            if ground is None and look_into != given.look_into[0]:
                continue
            search = search_of(index, ground=ground, features=root / "shapes/features.h5")
            parts: dict[str, list[Seconds]] = {"sentence": [], "retrieve": [], "ground": [], "request": []}
            sentences, scan = index.retriever.sentences, index.engine.search
            index.retriever.sentences = recorded(parts["sentence"], sentences)
            index.engine.search = recorded(parts["retrieve"], scan)
            if search.grounder is not None:
                search.grounder.ground = recorded(parts["ground"], search.grounder.ground)
            ask = recorded(parts["request"], search)
            for text in texts:
                ask(text, 10, videos=look_into)
            index.retriever.sentences, index.engine.search = sentences, scan
            for part, times in parts.items():
                if not times:
                    continue
                values = 1000 * np.array(times[given.warm :])
                rows.append(
                    {
                        "videos": len(index.engine),
                        "ground": "none" if ground is None else ground.parent.name,
                        "look_into": "" if ground is None else look_into,
                        "part": part,
                        "sentences": len(values),
                        **{
                            f"{kind}_p{share}_ms": f"{np.percentile(values[:, column], share):.2f}"
                            for column, kind in enumerate(("wall", "processor"))
                            for share in (50, 95)
                        },
                        "load": f"{os.getloadavg()[0]:.1f}",
                    }
                )
                print(rows[-1])
        index.close()
    write_rows(measured_here("search-latency"), rows)


if __name__ == "__main__":
    main()
