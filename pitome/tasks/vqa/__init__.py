"""task=vqa: questions about images."""
