"""Rules by which masks move: one file per rule."""
