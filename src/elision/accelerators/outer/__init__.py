"""Outer-product machines: every non-zero with every non-zero of a plane."""
