"""Measured time: how it is taken, kept, and turned into a model of a network's latency."""
