"""Real models and real data to study."""
