"""Pieces that are taken out of a vocabulary."""
