"""Measure the sentence lengths of docs/text_flops.md: python -m scripts.tables.text_lengths TOKENIZER_FOLDER

Writes scripts/tables/text_lengths.yaml.
"""

from __future__ import annotations

import sys
from collections import Counter

import yaml

from pitome.errors import PitomeError, UsageError
from pitome.tasks.text.costs import LIMIT
from scripts.tables.text_flops import LENGTHS


def main(words: list[str]) -> int:
    """Count the tokens of every snippet of Rotten Tomatoes. Returns the exit code."""
    try:
        if len(words) != 1:
            raise UsageError("give the folder of a tokenizer")
        from transformers import AutoTokenizer

        from pitome.tasks.text.sets import package_rows

        try:
            tokenizer = AutoTokenizer.from_pretrained(words[0], local_files_only=True)
        except (OSError, ValueError):
            raise UsageError(f"no tokenizer in {words[0]}; give a folder with tokenizer.json") from None
        texts, _ = package_rows("another tokenizer")
        counts = Counter(map(len, tokenizer(texts, truncation=True, max_length=LIMIT)["input_ids"]))
    except PitomeError as problem:
        print(f"error: {problem}", file=sys.stderr)
        return 2
    source = "vaderSentiment 3.3.2 on PyPI, WordPiece with the 30,522 words of bert-base-uncased"
    LENGTHS.write_text(
        yaml.safe_dump({"source": source, "tokens": dict(sorted(counts.items()))}, sort_keys=False)
    )
    print(LENGTHS)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
