"""Builders: a name becomes a model, its preprocessing and the identity of its weights."""
