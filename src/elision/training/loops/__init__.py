"""Other people's training loops: Lightning, Transformers, Accelerate, DeepSpeed."""
