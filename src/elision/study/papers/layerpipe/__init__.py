"""LayerPipe beside PipeDream, on PipeDream's published profiles."""
