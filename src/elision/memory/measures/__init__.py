"""Measurements of a policy: its bytes, its time and its gradient error."""
