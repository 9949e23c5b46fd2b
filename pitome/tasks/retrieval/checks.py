"""Checks of retrieval. Imports no torch."""

from __future__ import annotations

from pitome.tasks.checks import Checks


class RetrievalChecks(Checks):
    options = ("rerank",)


CHECKS = RetrievalChecks()
