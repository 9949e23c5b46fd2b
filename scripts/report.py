"""Reports from the records: python scripts/report.py [WHAT ...] [results=FOLDER]

python scripts/report.py --help lists all reports.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from pitome.cli.report import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
