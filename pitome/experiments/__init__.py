"""The tables and figures of the paper as experiments: points, printed values, verdicts.

One YAML in experiments/ for each item. Its values are data: they are compared with records and enter
neither a configuration nor the identity of a run. Imports no torch.
"""
