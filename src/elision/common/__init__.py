"""The ground: names, specs, files, checks, timing, restoring, sampling, sharding."""
