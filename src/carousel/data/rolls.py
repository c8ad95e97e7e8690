"""Piano rolls: pieces of music as frames (T, 88), each with the keys of a piano that sound in it.

JSB_Chorales.mat                                       MATLAB cells: traindata, validdata, testdata
{"keys": [[60, 64, 67], [], ...], "split": "train"}    JSON Lines: of each frame a list of MIDI numbers, 21 to 108
C4 E4 G4 | - | C4 F4 A4                                text: notes by name, - for silence; C4 is 60
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from carousel.data.captions import Split
from carousel.data.matlab import read_cells
from carousel.errors import DataError

LOWEST, KEYS = 21, 88
PARTS: Mapping[str, Split] = {"traindata": "train", "validdata": "val", "testdata": "test"}
NAMES = ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B")
SILENCE = "-"
_NOTE = re.compile(r"([A-G])([#b]?)(\d)")


def read_rolls(path: str | Path) -> dict[Split, list[Tensor]]:
    """The pieces of a MATLAB file by split, as the sets of Boulanger-Lewandowski et al. 2012 are handed around.

    Raises:
        DataError: the file is missing or holds something else.
    """
    found = read_cells(path)
    for name in PARTS:
        if not found.get(name) or any(piece.shape[1:] != (KEYS,) or len(piece) < 2 for piece in found[name]):
            raise DataError(
                f"{path}: no piano rolls in {name!r} (got {', '.join(found) or 'nothing'}); matrices of 88 columns "
                f"in {', '.join(PARTS)}; take the sets of Boulanger-Lewandowski"
            )
    return {split: found[name] for name, split in PARTS.items()}


def keys_of(roll: Tensor) -> list[list[int]]:
    """The MIDI numbers of each frame.

    >>> keys_of(roll_of([[60, 64], []], "piece"))
    [[60, 64], []]
    """
    return [(frame.nonzero().flatten() + LOWEST).tolist() for frame in roll]


def roll_of(keys: Any, place: str) -> Tensor:
    """Frames (T, 88) of lists of MIDI numbers. Raises `DataError` where they are none, or fewer than two."""
    frames = keys if isinstance(keys, list) and all(isinstance(frame, list) for frame in keys) else []
    wrong = [key for frame in frames for key in frame if key not in range(LOWEST, LOWEST + KEYS)]
    if len(frames) < 2 or wrong:
        got = str(wrong[0] if wrong else keys)[:40]
        raise DataError(
            f"{place}: no piano roll (got {got}); MIDI numbers, {LOWEST} to {LOWEST + KEYS - 1}, in a list for each of "
            "two frames or more; mend it"
        )
    roll = torch.zeros(len(frames), KEYS)
    for t, frame in enumerate(frames):
        roll[t, [key - LOWEST for key in frame]] = 1
    return roll


def written(frame: Tensor) -> str:
    """A frame as text.

    >>> written(parsed("C4 Eb4", "prompt")[0]), written(torch.zeros(88))
    ('C4 D#4', '-')
    """
    keys = (frame.nonzero().flatten() + LOWEST).tolist()
    return " ".join(f"{NAMES[key % 12]}{key // 12 - 1}" for key in keys) or SILENCE


def parsed(text: str, place: str) -> Tensor:
    """The frames (T, 88) of a text, between bars or line ends. Raises `DataError` with a note that is none."""
    frames = [frame.split() for frame in re.split(r"[|\n]", text.strip())] if text.strip() else []
    roll = torch.zeros(len(frames), KEYS)
    for t, frame in enumerate(frames):
        for note in frame:
            if note != SILENCE:
                roll[t, _key(note, place) - LOWEST] = 1
    return roll


def _key(note: str, place: str) -> int:
    found = _NOTE.fullmatch(note)
    key = 12 * (int(found[3]) + 1) + NAMES.index(found[1]) + {"#": 1, "b": -1, "": 0}[found[2]] if found else 0
    if key not in range(LOWEST, LOWEST + KEYS):
        raise DataError(f"{place}: no note of a piano (got {note[:20]!r}); A0 to C8, such as C#4 or Eb4; mend it")
    return key
