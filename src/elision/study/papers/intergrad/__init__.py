"""Interleaved gradients on systolic arrays: tables, readings and figures."""
