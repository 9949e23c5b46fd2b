"""`python -m pitome`: as the command `pitome`."""

import sys

from pitome.cli.command import main

if __name__ == "__main__":
    sys.exit(main())
