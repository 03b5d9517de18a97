"""The folder of an index: what made it, a copy of the model, and the engine that holds its vectors."""

from __future__ import annotations

import dataclasses
import importlib
import os
import re
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypedDict

from vmr_common.errors import UserError, quoted
from vmr_common.features.manifest import Manifest as FeatureManifest
from vmr_common.folder_lock import FolderLock
from vmr_common.io import sha256, sweep_partials
from vmr_search.engine.moment_index import MomentIndex
from vmr_search.index_files import DOING, read_checked, require_own, write_checked
from vmr_search.retriever import Retriever, open_retriever

NAME = "index.json"
MODEL = "model.safetensors"
ENGINES = {
    "scan": "vmr_search.engine.scan.scan_index:ScanIndex",
    "lance": "vmr_search.engine.lance:LanceIndex",
    "qdrant": "vmr_search.engine.qdrant:QdrantIndex",
}
"""Class of each engine, an `EngineClass`, by name."""

_OURS = {"place", "size", "identity", "device"}  # what an engine is opened with, beside its own options
_SHA256 = re.compile("[0-9a-f]{64}")


class EngineClass(Protocol):
    """The class of an engine. `place` is a folder of the index that is the engine's own, or a URL."""

    def create(self, place: Path | str, *, size: int, identity: str, **options: Any) -> MomentIndex:
        """An empty index of vectors of so many numbers.

        What a killed creation left behind, an index without videos, is begun again.

        Args:
            place: See the class.
            size: Length of a vector.
            identity: Of what makes the vectors.
            **options: The engine's own.

        Raises:
            UserError: if there is an index with videos already, or anything else.
        """

    def open(
        self, place: Path | str, *, size: int, identity: str, device: str = "cpu", **options: Any
    ) -> MomentIndex:
        """The index that was created there with these options.

        Raises:
            UserError: if there is none, or one of another size or identity.
        """


class _Content(TypedDict):
    engine: str
    url: str | None
    options: dict[str, Any]
    retriever: str
    retriever_facts: dict[str, Any]
    identity: str
    model_sha256: str
    size: int
    features: dict[str, str | float | bool | None] | None


@dataclass(frozen=True, kw_only=True)
class IndexFacts:
    """The facts of an index, written once.

    Attributes:
        engine: Name in `ENGINES`.
        url: Where the engine is, None for one in the folder.
        options: Of the engine, given when it was created and whenever it is opened.
        retriever: Name of the retriever that made the vectors.
        retriever_facts: Its `Retriever.facts`.
        identity: Its `Retriever.identity`.
        model_sha256: Of the copy of its model in the index; empty if there is none.
        size: Length of a vector.
        features: Manifest of the feature files (see `vmr_common.features.manifest`), or None.
    """

    engine: str
    url: str | None
    options: dict[str, Any]
    retriever: str
    retriever_facts: dict[str, Any]
    identity: str
    model_sha256: str
    size: int
    features: dict[str, Any] | None


class CorpusIndex:
    """An open index. Close it, or use it in a ``with`` block.

    Args:
        folder: Of the index.
        facts: What it is.
        engine: Holds its vectors.
        retriever: The model that made them; None: the index's own copy, read and checked on first use.
        device: Where that computes.
    """

    def __init__(
        self,
        folder: Path,
        facts: IndexFacts,
        engine: MomentIndex,
        retriever: Retriever | None = None,
        device: str = "cpu",
    ) -> None:
        self.folder, self.facts, self.engine = folder, facts, engine
        self._retriever, self._device = retriever, device
        self._loading = threading.Lock()
        if retriever is not None:
            self.require_same(retriever)

    @property
    def retriever(self) -> Retriever:
        """The model that made the vectors.

        Raises:
            UserError: if its copy is damaged, or no retriever of its name is installed, or another one than was.
        """
        with self._loading:
            if self._retriever is None:
                model = self.folder / MODEL if self.facts.model_sha256 else None
                self._require_model()
                facts = self.facts.retriever_facts
                found = open_retriever(self.facts.retriever, model, facts, self._device)
                self.require_same(found)
                self._retriever = found
            return self._retriever

    def require_same(self, retriever: Retriever) -> None:
        """Raises `UserError` unless a retriever is the one that made the vectors."""
        if (found := retriever.identity()) != self.facts.identity:
            raise UserError(
                f"{self.folder}: built by model {self.facts.identity[:12]} ({self.facts.retriever}), but the "
                f"{retriever.name} given is {found[:12]}; give that one, or another folder for a new index"
            )

    def verify(self) -> None:
        """Reads all of the index; raises `UserError` for the first damage."""
        self.engine.verify()
        self._require_model()

    def _require_model(self) -> None:
        path = self.folder / MODEL
        if self.facts.model_sha256 and sha256(path) != self.facts.model_sha256:
            raise UserError(f"{path}: damaged, its checksum does not fit the index")

    def __enter__(self) -> CorpusIndex:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Lets go of files and connections."""
        self.engine.close()


def create(
    folder: str | Path,
    retriever: Retriever,
    *,
    engine: str = "scan",
    url: str | None = None,
    features: FeatureManifest | None = None,
    **options: Any,
) -> CorpusIndex:
    """An empty index of a retriever; `building.extend` fills it.

    Args:
        folder: Holds nothing, or what a killed creation left.
        retriever: A copy of its model is kept in the index, so that searching needs nothing else.
        engine: Name of the engine.
        url: Where the engine is, for one that is a server.
        features: What the feature files must have been made by.
        **options: Of the engine, JSON values, such as ``dtype="float32"`` of scan.

    Raises:
        UserError: if there is an index already, the folder holds anything else or cannot be written, or the engine
            is not known or not installed.
    """
    folder = Path(folder)
    url = address_of(engine, url)
    kind = _engine_class(engine)
    require_writable(folder)
    with FolderLock(folder, DOING):
        if (folder / NAME).exists():
            raise UserError(f"{folder}: holds an index already")
        sweep_partials(folder, {NAME, MODEL}.__contains__)
        saved = retriever.save(folder / MODEL)
        facts = IndexFacts(
            engine=engine,
            url=url,
            options=dict(options),
            retriever=retriever.name,
            retriever_facts=dict(retriever.facts),
            identity=retriever.identity(),
            model_sha256=sha256(folder / MODEL) if saved else "",
            size=retriever.size,
            features=None if features is None else dataclasses.asdict(features),
        )
        made = kind.create(url or folder / engine, size=facts.size, identity=facts.identity, **options)
        write_checked(folder / NAME, dataclasses.asdict(facts))
    return CorpusIndex(folder, facts, made, retriever)


def open_index(folder: str | Path, *, device: str = "cpu", retriever: Retriever | None = None) -> CorpusIndex:
    """An index, to search it or to add to it.

    Args:
        folder: Of the index.
        device: Where the retriever, and an engine that multiplies itself, compute.
        retriever: The model, to avoid reading the index's own copy; must be the one that built it.

    Raises:
        UserError: if the folder is no index, a file is damaged, cut short or missing, or the model differs.
    """
    folder = Path(folder)
    facts = read_facts(folder)
    kind = _engine_class(facts.engine)
    engine = kind.open(
        facts.url or folder / facts.engine,
        size=facts.size,
        identity=facts.identity,
        device=device,
        **facts.options,
    )
    return CorpusIndex(folder, facts, engine, retriever, device)


def is_index(folder: Path) -> bool:
    """True if the folder says that it is an index."""
    return (folder / NAME).exists()


def read_facts(folder: Path) -> IndexFacts:
    """The facts of an index.

    Raises:
        UserError: if the folder is no index, or one of an earlier version, or its file is damaged; names the key.
    """
    path = folder / NAME
    try:
        content = read_checked(path, _Content)
    except FileNotFoundError:
        _refuse_earlier(folder)
        raise UserError(f"{folder}: not an index (no {NAME})") from None
    if content["engine"] not in ENGINES:
        raise UserError(f"{path}: key engine: found {quoted(content['engine'])}, expected {_known()}")
    if content["model_sha256"] and not _SHA256.fullmatch(content["model_sha256"]):
        raise UserError(
            f"{path}: key model_sha256: found {quoted(content['model_sha256'])}, expected a SHA-256"
        )
    address_of(content["engine"], content["url"], f"{path}: key url")
    if strange := sorted(content["options"].keys() & _OURS):
        raise UserError(f"{path}: key options: found {quoted(strange[0])}, which is not an engine's own")
    if content["features"] is not None:
        FeatureManifest.from_mapping(content["features"], f"{path}: key features")
    return IndexFacts(**content)


def require_writable(folder: Path) -> None:
    """Makes sure that an index may be written to a folder: it holds one, nothing, or what a killed writer began.

    Raises:
        UserError: if it holds anything else, or one of the names of an index is a link there.
    """
    if not is_index(folder):
        _refuse_earlier(folder)
    require_own(folder, NAME, {MODEL, *ENGINES})
    if is_index(folder):
        read_facts(folder)  # another program's file of that name is refused


def _refuse_earlier(folder: Path) -> None:
    if (folder / "manifest.json").is_file() and (folder / "shards").is_dir() and not is_index(folder):
        raise UserError(
            f"{folder}: an index of format 1, which is no longer read, expected 2; build it anew in another folder "
            "with the command that built it"
        )


def _engine_class(name: str) -> EngineClass:
    module, _, attribute = ENGINES[name].partition(":")
    found: EngineClass = getattr(importlib.import_module(module), attribute)
    return found


def address_of(engine: str, url: str | None, where: str = "url") -> str | None:
    """The address of an engine, or None; a folder of this machine by its whole path: an index is opened from anywhere.

    Raises:
        UserError: if no engine has this name, it is in the folder of the index alone, or there is no address.
    """
    if engine not in ENGINES:
        raise UserError(f"engine: found {quoted(engine)}, expected {_known()}")
    if url is None:
        return None
    if engine == "scan":
        raise UserError(
            f"{where}: found {quoted(url)}, but the engine scan is in the folder of the index alone"
        )
    if not url.strip():
        raise UserError(f"{where}: found {quoted(url)}, expected an address")
    return os.path.abspath(url) if engine == "lance" and "://" not in url else url


def _known() -> str:
    return ", ".join(ENGINES)
