"""Running text as streams of token ids, one for each split: what a language model reads."""

from __future__ import annotations

import hashlib
import re
import sys
from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from carousel.data.captions import Split
from carousel.data.tables import NAMES, Table
from carousel.data.text_file import text_lines
from carousel.data.tokenizers import SPLITTERS, Kind, Tokenizer
from carousel.data.vocabulary import STOP, Vocabulary
from carousel.errors import DataError

LINE_END = "\n"
APART = re.compile(r" (?:[.,;:!?]|<unk>|n't|'s)(?= |$)", re.MULTILINE)  # as in text that is split into tokens already


class Stream(NamedTuple):
    """A text as ids, with how many characters it has."""

    ids: Tensor  # (N,) int32
    characters: int


@dataclass(frozen=True)
class Corpus:
    """Plain text in files, read line by line: each line with its end, which is a token of its own.

    With `words` and `spaces` that token is what others write as ``<eos>``. Where no file is for a split, the last
    `shares` of the text to train on are, in whole lines.

    >>> import tempfile
    >>> from carousel.data.tables import open_table
    >>> with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
    ...     _ = file.write("a b\\n" * 8 + "a c\\na d\\n")
    ...     file.flush()
    ...     corpus = Corpus.of(open_table(file.name), val_share=0.1, test_share=0.1)
    ...     corpus.splits, corpus.text("val")
    (('train', 'val', 'test'), 'a c\\n')
    """

    table: Table
    cuts: dict[Split, tuple[int, int]]  # the lines of each split within the text to train on
    files: dict[Split, tuple[Path, ...]]

    @classmethod
    def of(cls, table: Table, val_share: float, test_share: float) -> Corpus:
        """Raises `DataError` where the table is no running text."""
        if table.kind != "text":
            raise DataError(
                f"{table.path}: no running text (got {NAMES[table.kind]}); plain text, or a folder with train.txt, "
                "valid.txt and test.txt; choose another --task"
            )
        files: dict[Split, tuple[Path, ...]] = {}
        for part in table.parts:
            split = part.split or "train"
            files[split] = (*files.get(split, ()), *part.files)
        if "train" not in files:
            files["train"] = files.pop(next(iter(files)))
        return cls(table, _cuts(files, val_share, test_share), files)

    @property
    def splits(self) -> tuple[Split, ...]:
        """Those that hold some text."""
        order: tuple[Split, ...] = ("train", "val", "test")
        return tuple(split for split in order if split in self.files or len(range(*self.cuts.get(split, (0, 0)))))

    def lines(self, split: Split) -> Iterator[str]:
        """The lines of a split with their ends, in Unicode's normal form C."""
        files, cut = self.files.get(split, self.files["train"]), (0, sys.maxsize)
        if split not in self.files or split == "train":
            cut = self.cuts.get(split, (0, 0))
        return islice((f"{line}{LINE_END}" for path in files for _, line in text_lines(path)), *cut)

    def text(self, split: Split) -> str:
        """The whole of it."""
        return "".join(self.lines(split))

    def kind(self) -> Kind:
        """Tokens that suit the text: what stands between spaces where punctuation does, else characters."""
        start = "".join(islice(self.lines("train"), 1000))
        return "spaces" if len(APART.findall(start)) > 0.02 * len(start.split()) else "characters"

    def stream(self, split: Split, tokenizer: Tokenizer) -> Stream:
        """The split as ids. Raises `DataError` where it is empty."""
        ids, characters = array("i"), 0
        for line in self.lines(split):
            ids.extend(tokenizer.vocabulary.encode(tokens_of(tokenizer, line)))
            characters += len(line)
        if len(ids) < 2:
            raise DataError(
                f"{self.table.path}: nothing in {split!r} (got {len(ids)} tokens); some text; add a file for it, or "
                f"--set {split}_share=0.1"
            )
        return Stream(torch.frombuffer(ids, dtype=torch.int32), characters)

    def digest(self) -> str:
        """Names the text."""
        found = hashlib.blake2b(digest_size=8)
        for split in self.splits:
            found.update(f"\0{split}\0".encode())
            for line in self.lines(split):
                found.update(line.encode())
        return found.hexdigest()


def _cuts(files: dict[Split, tuple[Path, ...]], val_share: float, test_share: float) -> dict[Split, tuple[int, int]]:
    val_share, test_share = 0.0 if "val" in files else val_share, 0.0 if "test" in files else test_share
    if not val_share + test_share:
        return {"train": (0, sys.maxsize)}
    ends = torch.tensor([len(line) + 1 for path in files["train"] for _, line in text_lines(path)]).cumsum(0)
    wanted = (1 - torch.tensor([val_share + test_share, test_share], dtype=torch.double)) * int(ends[-1])
    first, second = torch.searchsorted(ends.double(), wanted - 0.5).add(1).tolist()
    second = max(first, second) if val_share and test_share else first if test_share else len(ends)
    return {"train": (0, first), "val": (first, second), "test": (second, len(ends))}


# --- lines and their tokens -------------------------------------------------------------------------------------------


def tokens_of(tokenizer: Tokenizer, text: str) -> list[str]:
    """The tokens of some lines; the end of a line is one, whatever the kind.

    >>> tokenizer = tokenizer_for("spaces", ["a b\\n", "c\\n"], lowercase=False, min_count=1, most=100)
    >>> tokens_of(tokenizer, "a b\\nc"), joined(tokenizer, tokenizer.vocabulary.encode(["a", "b", "\\n", "c"]))
    (['a', 'b', '\\n', 'c'], 'a b\\nc')
    """
    if tokenizer.kind not in ("words", "spaces"):
        return tokenizer.tokens(text)
    first, *others = text.split(LINE_END)
    return [*tokenizer.tokens(first), *chain.from_iterable([LINE_END, *tokenizer.tokens(line)] for line in others)]


def tokenizer_for(
    kind: Kind, lines: Iterator[str] | Sequence[str], *, lowercase: bool, min_count: int, most: int
) -> Tokenizer:
    """`Tokenizer.train` on lines with their ends."""
    if kind not in ("words", "spaces"):
        return Tokenizer.train(kind, lines, lowercase=lowercase, min_count=min_count, most=most)
    counts = Counter[str]()
    for line in lines:
        counts.update(SPLITTERS[kind](line.lower() if lowercase else line))
        counts[LINE_END] += 1
    return Tokenizer(kind, Vocabulary.of_counts(counts, min_count, most), lowercase=lowercase)


def joined(tokenizer: Tokenizer, ids: Sequence[int]) -> str:
    """The text of ids: words with spaces between them, but not at the ends of lines."""
    if tokenizer.kind not in ("words", "spaces"):
        return tokenizer.decode(ids)
    return tokenizer.decode(ids).replace(f" {LINE_END}", LINE_END).replace(f"{LINE_END} ", LINE_END)


def before_all(tokenizer: Tokenizer) -> int:
    """The id that a text is read after: the end of a line, as if another text had just ended."""
    found = tokenizer.encode(LINE_END) if tokenizer.kind not in ("words", "spaces") else []
    return (
        found[-1] if found else tokenizer.vocabulary.encode([LINE_END])[0] if LINE_END in tokenizer.vocabulary else STOP
    )
