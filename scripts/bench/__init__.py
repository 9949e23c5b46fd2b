"""How fast merged models are beside unmerged ones: `make bench`."""
