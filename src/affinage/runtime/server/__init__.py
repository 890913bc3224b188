"""Serving models over HTTP: requests of many clients computed together, within bounds on everything."""
