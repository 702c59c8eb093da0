"""Sparse training on small images: runs and tables beside published ones."""
