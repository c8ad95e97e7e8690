"""The words that a score counts: lower case, letters and digits only, one space between."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

from carousel.errors import DataError


def normalise(text: str) -> str:
    """The caption as the scores read it: lower case, only letters, digits and single spaces.

    Every other character is dropped, not replaced by a space, so that "t-shirt" and "tshirt" are one word. Combining
    marks count as part of their letter. Applying it twice changes nothing.

    >>> normalise("A man's  T-shirt, No. 7 .")
    'a mans tshirt no 7'
    """
    composed = unicodedata.normalize("NFC", text.lower())
    return " ".join("".join(filter(_is_kept, composed)).split())


def _is_kept(character: str) -> bool:
    return character.isalnum() or character.isspace() or unicodedata.category(character).startswith("M")


def check_pairs(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> None:
    """Refuse candidates and references that cannot be scored together.

    >>> check_pairs(["a dog"], [["a dog", "the dog"]])
    >>> check_pairs(["a dog"], ["a dog"])
    Traceback (most recent call last):
    carousel.errors.DataError: references[0]: one string (got 'a dog'); every image needs a list of captions

    Raises `DataError` unless there is one candidate for every image, at least one image, and at least one reference
    for every image.
    """
    if len(candidates) != len(references) or not candidates:
        raise DataError(
            f"captions to score: {len(candidates)} candidates for {len(references)} images; "
            "one candidate for every image is needed, and at least one image"
        )
    check_references(references)


def check_references(references: Sequence[Sequence[str]]) -> None:
    """Refuse references that are empty, or a plain string where a list of captions is meant.

    >>> check_references([["a dog"], []])
    Traceback (most recent call last):
    carousel.errors.DataError: references[1]: no caption; every image needs at least one reference
    """
    if not references:
        raise DataError("references: no image; at least one image with at least one reference is needed")
    for image, captions in enumerate(references):
        if isinstance(captions, str):
            raise DataError(f"references[{image}]: one string (got {captions!r}); every image needs a list of captions")
        if not captions:
            raise DataError(f"references[{image}]: no caption; every image needs at least one reference")
