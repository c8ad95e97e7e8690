"""Any recurrence as fused kernels for the whole time loop: trace, derive, plan, and a backend."""

from carousel.compiler.engine import Engine, check_engine, compiled, known
from carousel.compiler.engine import run as run_compiled

__all__ = ["Engine", "check_engine", "compiled", "known", "run_compiled"]
