"""Sequences of numbers with what is to be learned of them, from a file of JSON Lines."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from carousel.data.text_file import read_text
from carousel.errors import DataError

Target = Literal["label", "number", "labels", "numbers"]
SPLITS = ("train", "val", "test")
WANTED = '{"inputs": [[0.1, 2], [0.3, 1], ...], "target": "a label"}'


@dataclass(frozen=True, slots=True)
class Sequence:
    """One sequence: its elements (T, I), its target, and the split it belongs to, if any."""

    inputs: Tensor
    target: Any  # a string, a number, or a list of T of either
    split: str | None = None


class SequenceSet(NamedTuple):
    """What was read, in the order of the file: all of one width and with one kind of target."""

    sequences: list[Sequence]
    target: Target

    @property
    def input_size(self) -> int:
        return self.sequences[0].inputs.shape[1]


def read_sequences(path: str | Path) -> SequenceSet:
    """Read one sequence from each line; blank lines are skipped, and the file may be gzipped.

        {"inputs": [0.1, 0.3, 0.2], "target": "rising"}                      numbers, and a label
        {"inputs": [[0.1, 2], [0.3, 1]], "target": 4.5}                      elements of two numbers, and a number
        {"inputs": [0.1, 0.3, 0.2], "target": ["a", "b", "b"]}               one label for each element
        {"inputs": [0.1, 0.3, 0.2], "target": [0.3, 0.2, 0.4], "split": "test"}

    A label is a string (or true, false); a number is something to estimate, so classes with numbers for names are
    written as "3". All lines have elements of one width and targets of one kind.

    Raises:
        DataError: the file or one of its lines is not as above; the message begins with ``FILE:LINE``.

    >>> import tempfile
    >>> with tempfile.NamedTemporaryFile("w", suffix=".jsonl") as file:
    ...     _ = file.write('{"inputs": [1, 2, 4], "target": "rising"}')
    ...     file.flush()
    ...     read_sequences(file.name).target
    'label'
    """
    found: list[Sequence] = []
    kind: Target | None = None
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        if not line.strip():
            continue
        place = f"{path}:{number}"
        record = _record(line, place)
        sequence = Sequence(_inputs(record["inputs"], place), record["target"], _split(record, place))
        this = _kind(sequence, place)
        if found and sequence.inputs.shape[1] != found[0].inputs.shape[1]:
            raise DataError(
                f"{place}: another width (got elements of {sequence.inputs.shape[1]}); "
                f"{found[0].inputs.shape[1]} numbers, as in the first sequence; make them alike"
            )
        if kind not in (None, this):
            raise DataError(
                f"{place}: another kind of target (got a {this}); a {kind}, as in the first sequence; "
                "write classes as strings, values as numbers"
            )
        kind = this
        found.append(sequence)
    assert kind is not None, "a file that is not empty has a line"
    return SequenceSet(found, kind)


def _record(line: str, place: str) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except ValueError as error:
        raise DataError(f"{place}: not JSON (got {line[:40]!r}: {error}); one object a line; {WANTED}") from None
    if not isinstance(record, dict):
        raise DataError(f"{place}: not an object (got {line[:40]!r}); one object a line; {WANTED}")
    for name in ("inputs", "target"):
        if name not in record:
            got = ", ".join(record) or "nothing"
            raise DataError(f"{place}: no {name!r} (got {got}); 'inputs' and 'target'; {WANTED}")
    return record


def _inputs(values: Any, place: str) -> Tensor:
    wanted = "numbers, or lists of equally many numbers"
    if not isinstance(values, list) or not values:
        raise DataError(f"{place}: no sequence in 'inputs' (got {str(values)[:40]}); {wanted}; one for each element")
    elements = values if isinstance(values[0], list) else [[value] for value in values]
    for k, element in enumerate(elements):
        if not isinstance(element, list) or not element or len(element) != len(elements[0]) or not _numbers(element):
            raise DataError(
                f"{place}: element {k + 1} of 'inputs' does not fit (got {str(values[k])[:40]}); {wanted}, "
                "all finite; mend it"
            )
    return torch.tensor(elements, dtype=torch.float32)


def _numbers(values: list[Any]) -> bool:
    return all(isinstance(v, int | float) and not isinstance(v, bool) and math.isfinite(v) for v in values)


def _kind(sequence: Sequence, place: str) -> Target:
    target, T = sequence.target, len(sequence.inputs)
    values = target if isinstance(target, list) else [target]
    if isinstance(target, list) and len(target) != T:
        raise DataError(
            f"{place}: a target that does not fit (got {len(target)} for {T} elements); one for each, or a single "
            "label or number; mend it"
        )
    if all(isinstance(value, str | bool) for value in values):
        return "labels" if isinstance(target, list) else "label"
    if _numbers(values):
        return "numbers" if isinstance(target, list) else "number"
    raise DataError(
        f"{place}: not a target (got {str(target)[:40]}); a string, a finite number, or a list of either; mend it"
    )


def _split(record: dict[str, Any], place: str) -> str | None:
    split = record.get("split")
    if split is not None and split not in SPLITS:
        raise DataError(f"{place}: no such split (got {split!r}); {', '.join(SPLITS)}; or leave it out")
    return split
