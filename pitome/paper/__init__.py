"""The paper's items: what they print, which runs answer to it, and the verdicts."""
