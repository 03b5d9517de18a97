"""From sentences to numbers: tokens, GloVe word vectors, vocabularies, content-word scores."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from vmr_common.boundary import open_bytes
from vmr_common.errors import UserError, listed, quoted, visible
from vmr_common.io import byte_lines

_LINE_LIMIT = 1 << 20  # bytes of a line; a word and a thousand numbers take a hundredth

# First bytes of what people give by mistake.
_OTHER_KINDS = (
    (b"\x80", "a pickle, which is never loaded"),
    (b"PK\x03\x04", "a zip archive"),
    (b"\x89HDF", "an HDF5 file"),
    (b"\x93NUMPY", "an npy file"),
    (b"\x1f\x8b", "gzip data without the ending .gz"),
)


@dataclass(frozen=True, eq=False)
class WordVectors:
    """Word vectors in memory."""

    words: tuple[str, ...]  # the W words, in file order
    vectors: NDArray[np.float32]  # `(W, D)` float32
    source: str = ""  # where they come from, for messages
    _rows: dict[str, int] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if self.vectors.ndim != 2 or len(self.vectors) != len(self.words):
            raise ValueError(
                f"{len(self.words)} words need vectors of shape (W, D), found {self.vectors.shape}"
            )
        rows: dict[str, int] = {}
        for row, word in enumerate(self.words):
            rows.setdefault(word, row)
        object.__setattr__(self, "_rows", rows)

    @classmethod
    def read(cls, path: str | Path, keep: Collection[str] | None = None) -> WordVectors:
        """Reads GloVe text: per line a word, a blank and D numbers (``.gz`` accepted).

        The file is streamed, so with `keep` a table of millions of words needs memory only for the chosen
        ones. Words may contain blanks (a few in GloVe 840B do). A first line of two whole numbers (word2vec
        text) is skipped. Of a word that occurs twice the first vector counts.

        Args:
            path: The text file.
            keep: Words to load; None loads all.

        Raises:
            UserError: naming file and line for a wrong number of columns, a value that is not a finite
                number or text that is not UTF-8; for a file that is no GloVe text at all (pickles are never
                loaded), and for one without any word that is wanted.
        """
        words: dict[str, NDArray[np.float32]] = {}
        for word, vector in glove_rows(path, None if keep is None else frozenset(keep)):
            words.setdefault(word, vector)
        if not words:
            wanted = "word vectors"
            if keep is not None:
                wanted = f"vectors for any of the {len(keep)} wanted words ({listed(sorted(map(quoted, keep)), 5)})"
            raise UserError(f"{path}: found no {wanted}")
        return cls(tuple(words), np.stack(list(words.values())), str(path))

    @property
    def dim(self) -> int:
        """Width D of a vector."""
        return int(self.vectors.shape[1])

    def __len__(self) -> int:
        return len(self.words)

    def __contains__(self, word: object) -> bool:
        return word in self._rows

    def __getitem__(self, word: str) -> NDArray[np.float32]:
        """The vector of a word, ``(D,)``; `KeyError` if it has none."""
        vector: NDArray[np.float32] = self.vectors[self._rows[word]]
        return vector

    def table(self, words: Sequence[str]) -> NDArray[np.float32]:
        """Vectors by vocabulary id, ``(len(words) + 1, D)``: row 0 is zeros, row i the vector of word i - 1.

        Raises `KeyError` if a word has no vector.
        """
        rows = [self._rows[word] for word in words]
        return np.concatenate([np.zeros((1, self.dim), dtype=np.float32), self.vectors[rows]])


def glove_rows(path: str | Path, keep: frozenset[str] | None) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """Words and their vectors ``(D,)``, in file order; see `WordVectors.read`."""
    wanted = None if keep is None else {word.split(" ", 1)[0].encode() for word in keep}
    dim, stated = 0, None
    for number, line in _byte_lines(path):
        if number == 1 and _is_header(line):
            stated = int(line.split()[1])
            continue
        if not line.strip():
            continue
        if dim == 0:
            dim = len(line.split()) - 1
            if dim < 1:
                raise UserError(
                    f"{path}:{number}: expected a word and its numbers (GloVe text), found one column"
                )
            if stated not in (None, dim):
                raise UserError(
                    f"{path}:{number}: expected {stated} numbers as the first line says, found {dim}"
                )
        # parsing costs most of the time, so rows of other words are passed over by their first bytes
        if wanted is not None and line.lstrip(b" ").split(b" ", 1)[0] not in wanted and line[:1] != b" ":
            continue
        word, vector = _glove_row(line, dim, f"{path}:{number}")
        if keep is None or word in keep:
            yield word, vector


def _is_header(line: bytes) -> bool:
    fields = line.split()
    return len(fields) == 2 and all(field.isdigit() and len(field) < 19 for field in fields)


def _glove_row(line: bytes, dim: int, where: str) -> tuple[str, NDArray[np.float32]]:
    # from the right, because a word may itself hold blanks
    fields = line.rstrip().rsplit(b" ", dim)
    if len(fields) != dim + 1:
        raise UserError(
            f"{where}: expected a word and {dim} numbers as in the first line, found {len(fields) - 1}"
        )
    try:
        word = fields[0].decode("utf-8")
    except UnicodeDecodeError:
        raise UserError(f"{where}: the word is not UTF-8 text") from None
    try:
        if any(b"_" in field for field in fields[1:]):  # numpy takes 1_0 for 10
            raise ValueError
        with np.errstate(over="ignore"):
            vector = np.array(fields[1:], dtype=np.float64).astype(np.float32)
    except ValueError:
        raise UserError(f"{where}: expected a word and {dim} numbers as in the first line") from None
    if not np.isfinite(vector).all():
        raise UserError(f"{where}: the vector of {quoted(word, 60)} holds NaN or infinity")
    return word, vector


def _byte_lines(path: str | Path) -> Iterator[tuple[int, bytes]]:
    """Number and bytes of every line; one is held at a time."""
    path = Path(path)
    if not path.exists():
        raise UserError(f"{path}: no such file (expected word vectors as GloVe text)")
    with open_bytes(path) as file:
        for number, line in tqdm(
            byte_lines(file, path, limit=_LINE_LIMIT),
            desc=f"reading {visible(path.name)}",
            unit=" words",
            delay=2,
            disable=None,
            leave=False,
        ):
            if number == 1:
                _refuse_other_kinds(path, line)
            yield number, line


def _refuse_other_kinds(path: Path, start: bytes) -> None:
    kind = next((words for magic, words in _OTHER_KINDS if start.startswith(magic)), None)
    if kind is None and b"\0" in start:
        kind = "binary data"
    if kind is not None:
        raise UserError(
            f"{path}: expected word vectors as GloVe text (a word and its numbers per line), found {kind}"
        )


@dataclass(frozen=True)
class Vocabulary:
    """Words that a model knows, most frequent first; ids count from 1, 0 is padding and the unknown."""

    words: tuple[str, ...]  # the word with id i is `words[i - 1]`
    _ids: dict[str, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        ids = {word: number for number, word in enumerate(self.words, 1)}
        if len(ids) != len(self.words):
            raise ValueError("a vocabulary cannot hold a word twice")
        object.__setattr__(self, "_ids", ids)

    @classmethod
    def build(
        cls, token_lists: Iterable[Sequence[str]], vectors: WordVectors, max_words: int | None = None
    ) -> Vocabulary:
        """The `max_words` most frequent lower-cased tokens that have a vector; ties by first occurrence.

        Source: the released loaders of CPL, RGN and CFMR. Raises `UserError` if no token has a vector.
        """
        counts = Counter(
            word for tokens in token_lists for word in (token.lower() for token in tokens) if word in vectors
        )
        if not counts:
            raise UserError(f"{vectors.source or 'word vectors'}: no word of the annotations has a vector")
        return cls.from_counts(counts.items(), max_words)

    @classmethod
    def from_counts(cls, counts: Iterable[tuple[str, int]], max_words: int | None = None) -> Vocabulary:
        """The `max_words` words with the highest counts; ties keep the given order (None keeps all).

        Example:
            >>> Vocabulary.from_counts([("a", 5), ("person", 9), ("the", 9)], 2).words
            ('person', 'the')
        """
        ranked = sorted(counts, key=lambda entry: -entry[1])  # a stable sort: ties keep their order
        return cls(tuple(word for word, _ in ranked[:max_words]))

    def __len__(self) -> int:
        """Number of words, without the padding id."""
        return len(self.words)

    def __contains__(self, word: object) -> bool:
        return word in self._ids

    def id(self, word: str) -> int:
        """The id of a word, 0 if it is unknown. Case counts: lower-case tokens first."""
        return self._ids.get(word, 0)
