"""python -m scripts.tables: see `command.py`."""

import sys

from scripts.tables.command import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
