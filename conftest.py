"""Examples in docstrings that need an extra are tested where it is installed."""

from importlib.util import find_spec

NEEDS = {"sacrebleu": "src/carousel/metrics/translation.py"}
collect_ignore = [path for package, path in NEEDS.items() if find_spec(package) is None]
