"""lmms-eval with merging in LLaVA: python scripts/lmms.py --model pitome_llava --model_args ... --tasks gqa

Everything after it is lmms-eval's own command line; docs/vqa_data.md says what model_args takes.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from pitome.cli.lmms import register
from pitome.errors import PitomeError


def main() -> int:
    """Register the model, then do as lmms-eval does."""
    try:
        register()
        from lmms_eval.__main__ import cli_evaluate

        cli_evaluate()
    except (PitomeError, OSError) as problem:
        print(f"error: {problem}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
