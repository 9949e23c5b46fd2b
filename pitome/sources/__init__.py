"""Where bytes come from: hubs, registries, folders; one reader for each kind of file."""
