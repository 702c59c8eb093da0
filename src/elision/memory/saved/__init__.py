"""Saved tensors: their roles, layouts, regions and bytes."""
