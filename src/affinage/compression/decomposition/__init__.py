"""Weights as products of smaller tensors."""
