"""The merge methods, one file each; `registry` finds them when a name is first looked up."""
