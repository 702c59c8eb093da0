"""Who computes a product on this machine."""
