"""Measured numbers with their conditions, and how they are shown."""
