"""task=retrieval: images and their captions."""
