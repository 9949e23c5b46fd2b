"""What a model costs: operations, time and memory."""
