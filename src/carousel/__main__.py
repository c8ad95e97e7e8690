"""``python -m carousel``: the same as the command ``carousel``."""

import sys

from carousel.cli import main

if __name__ == "__main__":
    sys.exit(main())
