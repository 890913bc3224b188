"""Using a model: text in, answer out."""
