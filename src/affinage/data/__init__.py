"""Texts, labels, tokens and rows."""
