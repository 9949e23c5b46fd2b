"""Token merging on tensors: no model, no config, no I/O."""
