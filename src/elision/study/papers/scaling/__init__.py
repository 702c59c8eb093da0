"""Published scaling and compression figures beside the scaling model."""
