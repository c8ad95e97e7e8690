"""Read photos: JPEG, PNG and WebP files into small square tensors, and one clear line where that cannot be done."""

from __future__ import annotations

import io
import os
import threading
import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from carousel.errors import PhotoError

FORMATS = ("JPEG", "PNG", "WEBP")
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
MAX_PIXELS = 25_000_000
MAX_BYTES = 200_000_000

_ALLOWED = "JPEG, PNG and WebP are allowed"
_ORIENTATION = 0x0112  # the EXIF tag: how the camera was held
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_KNOWN_BEGINNINGS = {
    b"GIF8": "a GIF",
    b"BM": "a BMP",
    b"II*\0": "a TIFF",
    b"MM\0*": "a TIFF",
    b"%PDF": "a PDF",
    b"<svg": "an SVG",
    b"<?xml": "an XML file",
    b"<!DOC": "a web page",
    b"<html": "a web page",
    b"PK\3\4": "a ZIP file",
}
_header_lock = threading.Lock()


def read_photo(source: str | Path | bytes, size: int = 224, *, name: str | None = None) -> Tensor:
    """Read one photo as 8-bit RGB ``(3, size, size)``.

    The photo is turned as its EXIF orientation says, laid on white where it is transparent, and squeezed to a square by
    bicubic interpolation: nothing is cropped, the aspect ratio is not kept. Grey, 16-bit, palette and CMYK pictures
    become RGB; of an animation the first frame is read. Colour profiles are ignored.

    ``source`` is a path or the bytes of a file; ``name`` is what errors call it, by default the path. At most 25
    million pixels and 200 MB are accepted, judged before decoding. Raises `PhotoError` with one line that says why.

    Example:
        >>> file = io.BytesIO()
        >>> Image.new("L", (640, 480), color=200).save(file, "PNG")
        >>> photo = read_photo(file.getvalue(), size=4)
        >>> tuple(photo.shape), photo.unique()
        ((3, 4, 4), tensor([200], dtype=torch.uint8))
    """
    return _read(source, lambda width, height: (size, size), name)


def read_upright(source: str | Path | bytes, longest: int, *, enlarge: float = 1, name: str | None = None) -> Tensor:
    """Read one photo as `read_photo` does, but with its own aspect ratio: 8-bit RGB ``(3, H, W)``.

    Its longer side becomes ``longest`` pixels, or ``enlarge`` times what it was where that is less.

    Example:
        >>> file = io.BytesIO()
        >>> Image.new("L", (640, 480), color=200).save(file, "PNG")
        >>> tuple(read_upright(file.getvalue(), 320).shape), tuple(read_upright(file.getvalue(), 9999).shape)
        ((3, 240, 320), (3, 480, 640))
    """

    def shape(width: int, height: int) -> tuple[int, int]:
        scale = min(longest / max(width, height), enlarge)
        return max(1, round(width * scale)), max(1, round(height * scale))

    return _read(source, shape, name)


def _read(source: str | Path | bytes, shape: Callable[[int, int], tuple[int, int]], name: str | None) -> Tensor:
    """Read one photo; `shape` says from its stored width and height which ones are wanted."""
    if isinstance(source, bytes):
        name, content = name or "photo", source
    else:
        name, content = name or _printable(source), read_file(source)
    if not content:
        raise PhotoError(f"{name}: the file is empty (got 0 bytes); {_ALLOWED}; copy it again from where it came")
    image, orientation = _open(content, name)
    # A decoder meets hostile bytes here: whatever it raises means that this one picture is broken.
    try:
        pixels = _resized(image, shape(image.width, image.height))
    except Exception as error:
        raise PhotoError(
            f"{name}: the picture is damaged (got {_reason(error)}); a complete file is needed; "
            "copy it again from where it came"
        ) from error
    if orientation in _UPRIGHT:
        pixels = pixels.transpose(_UPRIGHT[orientation])
    return torch.from_numpy(np.array(pixels)).permute(2, 0, 1).contiguous()


def read_file(path: str | Path) -> bytes:
    """The bytes of one photo file. Raises `PhotoError` where there is no such file or it is larger than 200 MB."""
    name = _printable(path)
    try:
        if Path(path).is_dir():
            raise PhotoError(f"{name}: not a photo (got a folder); {_ALLOWED}; name a file inside it")
        found = os.path.getsize(path)
        if found > MAX_BYTES:
            raise PhotoError(
                f"{name}: the file is too large (got {found / 1e6:.0f} MB); at most {MAX_BYTES / 1e6:.0f} MB are "
                "allowed; save a smaller copy"
            )
        return Path(path).read_bytes()
    except FileNotFoundError as error:
        raise PhotoError(f"{name}: no such file (got a path to nothing); {_ALLOWED}; check the path") from error
    except (OSError, ValueError) as error:
        raise PhotoError(
            f"{name}: the file cannot be opened (got {_reason(error)}); a readable file is needed; "
            "check the path and its permissions"
        ) from error


def find_photos(paths: str | Path | Iterable[str | Path]) -> list[Path]:
    """List the photos that ``paths`` mean, in order and each once.

    A folder stands for the JPEG, PNG and WebP files (judged by name, in any case) in it and in its folders, sorted by
    path; hidden ones are left out. Any other path stands for itself, whether or not it exists: `read_photo` judges it.
    Raises `PhotoError` for a folder without photos.
    """
    found: list[Path] = []
    for path in [paths] if isinstance(paths, str | Path) else paths:
        found += _photos_in(Path(path)) if Path(path).is_dir() else [Path(path)]
    return list(dict.fromkeys(found))


def _photos_in(folder: Path) -> Sequence[Path]:
    found = []
    for parent, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [Path(parent, name) for name in files if _looks_like_photo(name)]
    if not found:
        raise PhotoError(
            f"{_printable(folder)}: no photos in this folder (got 0 files named {', '.join(SUFFIXES)}); {_ALLOWED}; "
            "name another folder"
        )
    return sorted(found)


def _looks_like_photo(name: str) -> bool:
    return name.lower().endswith(SUFFIXES) and not name.startswith(".")


def _open(content: bytes, name: str) -> tuple[Image.Image, int]:
    """Read the header: the picture, not decoded yet, and its EXIF orientation (1 where it has none)."""
    try:
        # The warning filters belong to the whole process, hence the lock; Pillow warns about many a harmless tag.
        with _header_lock, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(content), formats=FORMATS)
            orientation = _orientation(image)
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise _too_many_pixels(name, "far more") from error
    except Exception as error:
        raise PhotoError(
            f"{name}: not a picture that can be read (got {_kind(content)}); {_ALLOWED}; save it as one of these"
        ) from error
    if image.width * image.height > MAX_PIXELS:
        raise _too_many_pixels(name, f"{image.width} x {image.height}")
    return image, orientation


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # a damaged tag is no reason to refuse the picture
        return 1


def _resized(image: Image.Image, shape: tuple[int, int]) -> Image.Image:
    """Decode and squeeze to RGB of this width and height."""
    # A large JPEG is decoded at a fraction of its size, much faster; twice the target leaves bicubic enough to do.
    image.draft(None, (2 * shape[0], 2 * shape[1]))
    if image.mode.startswith("I"):
        # Pillow's own conversion clips 16 bits to 255 instead of scaling them.
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if not image.has_transparency_data:
        return image.convert("RGB").resize(shape, Image.Resampling.BICUBIC)
    image = image.convert("RGBA").resize(shape, Image.Resampling.BICUBIC)
    return Image.alpha_composite(Image.new("RGBA", shape, "white"), image).convert("RGB")


def _too_many_pixels(name: str, got: str) -> PhotoError:
    return PhotoError(
        f"{name}: too many pixels (got {got}); at most {MAX_PIXELS // 1_000_000} million are allowed; "
        "save a smaller copy"
    )


def _kind(content: bytes) -> str:
    """Say what a file that is no photo seems to be.

    >>> _kind(b"GIF89a..."), _kind(b"hello, world")
    ('a GIF', "bytes that begin with b'hello, w'")
    """
    if content[4:8] == b"ftyp":
        return "a HEIC or AVIF picture or a film"
    if content.startswith((b"\xff\xd8\xff", b"\x89PNG", b"RIFF")):
        return "a damaged header"
    for beginning, kind in _KNOWN_BEGINNINGS.items():
        if content.startswith(beginning):
            return kind
    return f"bytes that begin with {content[:8]!r}"


def _reason(error: Exception) -> str:
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(text.split())


def _printable(path: str | Path) -> str:
    return str(path) if str(path).isprintable() else ascii(str(path))
