"""Search videos by a sentence: train a retriever, index the features, ask, and look at what is found.

    python examples/search_videos.py [CONFIG] [SENTENCE]

CONFIG is a bundled configuration of CFMR or a YAML file (default: shapes-corpus, the embedded data set).
On the command line: `cfmr-train`, `vmr-search index`, `vmr-search search`.
"""

import shutil
import sys
from pathlib import Path

import cfmr
import vmr_search
from vmr_search.building import extend
from vmr_search.folder import create
from vmr_search.retriever import open_retriever

config = sys.argv[1] if len(sys.argv) > 1 else "shapes-corpus"
sentence = sys.argv[2] if len(sys.argv) > 2 else "the orange triangle slides down"

run = cfmr.train(config, overwrite=True, name="corpus")
model = cfmr.load(run)

# vectors of all windows of all videos; `vmr-search index` makes the features of video files as well
shutil.rmtree("index", ignore_errors=True)
store = model.inputs.store
seconds = {video: store.length(video) * store.manifest.stride_s for video in store.videos()}
with create("index", open_retriever("cfmr", Path(run.folder), {})) as index:
    print(extend(index, store, seconds), "videos in the index")

search = vmr_search.open("index")
found = search(sentence, k=5)
print(found)
print(f"best: {found[0].video}, {found[0].start:.1f} to {found[0].end:.1f} s")

# in some videos, at the beginning; several sentences at once
early = vmr_search.Filter(videos=frozenset(store.videos()[:10]), before=5.0)
print(search(sentence, k=3, where=early))
for answer in search.many([sentence, "the blue square shrinks"], k=1):
    print(answer.text, "->", answer[0].video if answer else "nothing")

# a second stage: a trained method finds the moment inside the videos that were retrieved
both = vmr_search.open("index", ground=run.folder)
print(both(sentence, k=3))
Path("found.html").write_text(both(sentence)._repr_html_())  # a notebook shows this by itself
