"""Records of runs: what was run, under which conditions, and what came out.

One JSON file per run and its per-sample outcomes beside it; tables and plots are made from them
alone. Reads plain dictionaries and imports nothing else of the project but its errors.
"""

from pitome.records.identity import RESULT_VERSION, UNMERGED, build_identity, run_id
from pitome.records.schema import (
    Cost,
    DataRecord,
    Environment,
    Headline,
    MethodInfo,
    ModelInfo,
    Record,
    RecordError,
    Skipped,
    Throughput,
    WeightsInfo,
)
from pitome.records.store import Store

__all__ = [
    "RESULT_VERSION",
    "UNMERGED",
    "Cost",
    "DataRecord",
    "Environment",
    "Headline",
    "MethodInfo",
    "ModelInfo",
    "Record",
    "RecordError",
    "Skipped",
    "Store",
    "Throughput",
    "WeightsInfo",
    "build_identity",
    "run_id",
]
