"""Capture of networks as graphs, coupled structures on them, and rewriting to smaller graphs."""
