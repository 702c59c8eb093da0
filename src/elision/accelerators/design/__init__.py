"""Design of machines: buffers, shapes, schedules and sweeps."""
