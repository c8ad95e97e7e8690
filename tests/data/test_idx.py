"""The idx format."""

import gzip
from pathlib import Path

import pytest

from carousel.data.idx import read_idx
from carousel.errors import DataError

HEAD = bytes([0, 0, 8, 2, 0, 0, 0, 2, 0, 0, 0, 3])


@pytest.mark.parametrize(("suffix", "pack"), [("", bytes), (".gz", gzip.compress)])
def test_reads_plain_and_gzip(suffix: str, pack: type[bytes], tmp_path: Path) -> None:
    (tmp_path / f"some{suffix}").write_bytes(pack(HEAD + bytes([1, 2, 3, 250, 251, 252])))
    assert read_idx(tmp_path, "some").tolist() == [[1, 2, 3], [250, 251, 252]]


@pytest.mark.parametrize(
    "content", [b"", HEAD, HEAD + bytes(7), bytes([0, 0, 13, 0]), bytes([0, 0, 8, 0]), b"P5 2 3 255"]
)
def test_what_is_not_idx(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "some").write_bytes(content)
    with pytest.raises(DataError, match=r"some: not idx \(got \d+ bytes"):
        read_idx(tmp_path, "some")


def test_what_is_missing_or_cut(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no some in it \(got none, nor some\.gz\)"):
        read_idx(tmp_path, "some")
    (tmp_path / "some.gz").write_bytes(gzip.compress(HEAD)[:-3])
    with pytest.raises(DataError, match=r"some\.gz: cannot be read"):
        read_idx(tmp_path, "some")
