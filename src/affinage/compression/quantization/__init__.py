"""Weights as a few bits each: one file a method, the modules that hold them in `models.modules`."""
