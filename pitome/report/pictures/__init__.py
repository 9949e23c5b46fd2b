"""Pictures of what merged: groups per layer, as one PNG."""
