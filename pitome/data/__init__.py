"""Data sets: images, labels and sample indices from a local folder, the hub or a package."""
