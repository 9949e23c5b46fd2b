"""Pictures of what merged: images read safely, groups per layer, one PNG page."""
