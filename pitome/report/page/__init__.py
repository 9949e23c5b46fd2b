"""One HTML page of all results: opened from disk, without a request to anywhere."""
