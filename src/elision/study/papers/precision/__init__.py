"""Number formats in training: recipes on real data, beside what was published."""
