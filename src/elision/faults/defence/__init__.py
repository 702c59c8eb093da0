"""Ways to find a fault, or to bound what it does: one file each."""
