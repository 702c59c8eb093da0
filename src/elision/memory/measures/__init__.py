"""Measurements of what a policy keeps and what it changes."""
