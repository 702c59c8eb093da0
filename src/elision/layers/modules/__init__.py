"""Elided layer types: one file per layer of torch."""
