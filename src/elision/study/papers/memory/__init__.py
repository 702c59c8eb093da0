"""Saved-activation policies: published figures beside our own."""
