"""Saved activations under compression: measurements beside published claims."""
