"""Operators of an OpenVINO model: who reads them, and where they came from."""

import re
from typing import Any

_SCOPE = re.compile(r"/([^/]+)/")


def readers(op: Any) -> list[Any]:
    """The operators that read an operator's outputs, in the outputs' order."""
    return [target.get_node() for value in op.outputs() for target in value.get_target_inputs()]


def scope(op: Any) -> str:
    """The graph node that an operator came from; empty where its name does not say."""
    found = _SCOPE.match(op.get_friendly_name())
    return found.group(1) if found else ""
