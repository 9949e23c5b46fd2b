"""Token merging on tensors: no model, no config, no I/O.

Every module here that registers a method is found by `registry` when a name is first looked up.
"""
