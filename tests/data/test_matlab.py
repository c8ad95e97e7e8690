"""Cell arrays from MATLAB 5 files."""

from pathlib import Path

import numpy as np
import pytest
from piano_rolls import HEADER, element, mat, variable

from carousel.data.matlab import read_cells
from carousel.errors import DataError

CELLS = {"some": [np.arange(6.0).reshape(2, 3), np.eye(2, dtype=np.uint8)], "x": [np.array([[1.5]])]}


@pytest.mark.parametrize("packed", [True, False])
def test_reads_what_was_written(packed: bool, tmp_path: Path) -> None:
    path = tmp_path / "a.mat"
    path.write_bytes(mat(CELLS, packed=packed))
    found = read_cells(path)
    assert {name: [matrix.tolist() for matrix in some] for name, some in found.items()} == {
        name: [matrix.tolist() for matrix in some] for name, some in CELLS.items()
    }


def test_other_variables_are_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.mat"
    path.write_bytes(HEADER + variable("n", 6, (1, 1), element(9, bytes(8))))
    assert read_cells(path) == {}


@pytest.mark.parametrize(
    "content", [b"", b"no" * 100, mat(CELLS)[:-9], mat(CELLS, packed=False)[:-9], HEADER + element(14, b"x" * 8)]
)
def test_what_is_no_such_file(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.mat"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"a\.mat: not readable \(got .*a little-endian MATLAB 5 file; copy it again"):
        read_cells(path)


def test_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be opened"):
        read_cells(tmp_path / "a.mat")


@pytest.mark.data
def test_the_published_file(data_root: Path) -> None:
    """Against the counts of Boulanger-Lewandowski's splits and, where it is installed, SciPy."""
    path = data_root / "polymusic" / "JSB_Chorales.mat"
    found = read_cells(path)
    assert [len(found[name]) for name in ("traindata", "validdata", "testdata")] == [229, 76, 77]
    scipy_io = pytest.importorskip("scipy.io")
    theirs = scipy_io.loadmat(path)
    for name, matrices in found.items():
        assert all(np.array_equal(a.numpy(), b) for a, b in zip(matrices, theirs[name][0], strict=True))
