"""Any recurrence as fused kernels for the whole time loop: trace, derive, plan, and a backend."""

from carousel.compiler.engine import Engine, check_engine, compilable, compiled, known, plain, scans
from carousel.compiler.engine import run as run_compiled
from carousel.compiler.engine import run_both as run_both_compiled
from carousel.compiler.engine import run_padded as run_compiled_padded
from carousel.compiler.engine import stream as compiled_stream

__all__ = [
    "Engine",
    "check_engine",
    "compilable",
    "compiled",
    "compiled_stream",
    "known",
    "plain",
    "run_both_compiled",
    "run_compiled",
    "run_compiled_padded",
    "scans",
]
