"""python -m scripts.bench: see `command.py`."""

import sys

from scripts.bench.command import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
