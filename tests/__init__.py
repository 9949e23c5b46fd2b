"""The tests mirror pitome/: tests of pitome/records/store.py stand in tests/records/test_store.py."""

from pathlib import Path

ROOT = Path(__file__).parent.parent
"""The checkout."""

DATA = ROOT / "tests" / "data"
GOLDEN = DATA / "golden"
"""What the authors' code computed: see its README."""
