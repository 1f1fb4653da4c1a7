"""Keeps the libraries underneath from sending usage data."""

import os
import sys


def silence() -> None:
    """Make OpenVINO and NNCF unable to send anything; call before importing either.

    Both send through the package ``openvino_telemetry`` and carry a stub for when it is missing,
    so it is made to look missing. NNCF also honours a variable, which covers child processes.
    """
    os.environ["NNCF_CI"] = "1"
    if "openvino_telemetry" not in sys.modules:
        sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
