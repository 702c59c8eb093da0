"""Inner-product machines: one output at a time."""
