"""task=text: texts and their classes."""
