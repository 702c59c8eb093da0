"""A whole network in the blocked layout of the native kernels."""
