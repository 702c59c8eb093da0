"""Design questions asked of machines: buffers, shapes, schedules, sweeps."""
