"""Code for 64-bit ARM processors computes what the eager loops do, as far as an emulator can tell."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).with_name("arm_emulator.py")
CELLS = ("lstm-peephole", "gru", "lstm-layer-norm", "slstm")


def test_loops_for_arm_are_right(tmp_path: Path) -> None:
    """Products inside and outside of the loop, packing, vector functions and reductions, forward and backward."""
    pytest.importorskip("unicorn", reason="unicorn, the emulator, is not installed")
    settings = {"CAROUSEL_CACHE_DIR": str(tmp_path), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(PROGRAM), *CELLS]
    done = subprocess.run(command, env=os.environ | settings, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines()] == list(CELLS)
    assert "cannot" not in done.stdout
