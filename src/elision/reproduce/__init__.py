"""Published tables beside this library's own numbers: one file a study."""
