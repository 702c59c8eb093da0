"""Systolic arrays, and gradients interleaved on them."""
