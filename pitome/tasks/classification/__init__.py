"""task=classification: images and their classes."""
