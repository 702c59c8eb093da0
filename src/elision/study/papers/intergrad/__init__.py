"""Interleaved gradients on systolic arrays: published savings beside our own."""
