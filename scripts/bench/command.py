"""Speed of merged models beside unmerged ones: python -m scripts.bench [--help]

One JSON per set of conditions under results/bench/, with a table (Markdown) and a plot of it. It goes on
where it was stopped; `--minutes` ends it after that time, and the same command then does the rest.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from pitome.cli.arguments import parse
from pitome.errors import PitomeError, print_error
from scripts.bench.choice import PARTS, Choice

RESULTS = Path(__file__).parents[2] / "results" / "bench"


def main(words: list[str]) -> int:
    """Measure what is missing, write the record, print the targets. Returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m scripts.bench", description="Speed of merged models beside unmerged ones."
    )
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="default: all")
    parser.add_argument("--models", nargs="+", help="names of timm, bert_base, clip_l336; default: all")
    parser.add_argument("--methods", nargs="+", help="default: those of each group")
    parser.add_argument(
        "--ratio", type=float, help="share of tokens a layer keeps; default: 0.925, and others beside it"
    )
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N")
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16", "float16"))
    parser.add_argument("--minutes", type=float, help="end after so long; the same command goes on")
    parser.add_argument(
        "--pairs", type=int, help="rounds of a row, for a narrower interval; default: 20 or 6"
    )
    parser.add_argument(
        "--reference", type=Path, help="a checkout of the authors' repository to time as well"
    )
    parser.add_argument("--quick", action="store_true", help="a tiny model: to see that it works")
    parser.add_argument("--results", type=Path, default=RESULTS)
    try:
        choice = Choice(**vars(parse(parser, words)))
        choice.check()  # before torch is imported
        from scripts.bench.run import bench

        complete = bench(choice)
    except (PitomeError, OSError) as problem:
        return print_error(problem)
    except KeyboardInterrupt:
        print("\nstopped; what was measured is kept, the same command continues from there", file=sys.stderr)
        return 130
    if not complete:
        print("not everything is measured yet; the same command continues from there")
    return 0
