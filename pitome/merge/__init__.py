"""Token merging on tensors: no model, no config, no I/O. Importing it registers all methods."""

from pitome.merge import diffrate, none, pitome, random, tofu, tome

__all__ = ["diffrate", "none", "pitome", "random", "tofu", "tome"]
