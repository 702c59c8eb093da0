"""One module for each peer: what is installed, and which work is compared."""
