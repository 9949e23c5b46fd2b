"""Which patches ended up in one token, as PNG: python scripts/show_tokens.py image=... merge=pitome,tome

python scripts/show_tokens.py --help lists all keys.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from pitome.runs.show_tokens import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
