"""Programs of ``torch.export`` in, without running anything that a file may hold.

``torch.export.load`` unpickles parts of its archives, evaluates symbolic sizes as Python, and looks
up any attribute of torch that a file names. Here the graph is read as data: weights are raw bytes,
operators are looked up in a list, and sizes are computed by the graph itself.
"""

from edgeprune.pt2_import.loading import load_pt2

__all__ = ["load_pt2"]
