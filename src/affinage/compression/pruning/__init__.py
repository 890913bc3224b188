"""Weights, heads, neurons, layers and width that are taken out of a model: one file a method."""
