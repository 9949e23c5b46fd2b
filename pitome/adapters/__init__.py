"""Bring a merge plan into a model: one file per model library, named as the library."""
