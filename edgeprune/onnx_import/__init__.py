"""ONNX in: a file of any framework becomes a torch module that can be captured and pruned."""

from edgeprune.onnx_import import operators
from edgeprune.onnx_import.loading import input_specs, load_onnx
from edgeprune.onnx_import.model import OnnxModel

__all__ = ["OnnxModel", "input_specs", "load_onnx", "operators"]
