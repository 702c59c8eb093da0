"""Sparse training: published tables beside our own runs."""
