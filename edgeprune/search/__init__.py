"""The exact allocation of latency over alternatives; knows arrays and no model."""
