"""Published tables beside figures of our own, one file per paper."""
