"""ANT: convolutional networks, and networks of matrix products."""
