"""Imports flow one way: each part knows only what stands below it."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "edgeprune"
STAGES = {"compression", "latency", "recovery", "search"}
ABOVE_ALL = {"cli", "pipeline", "report", "stages", "doctor"}

# Part -> what its files must never import.
FORBIDDEN = {
    "graph": {"runtimes", "devices", *STAGES, *ABOVE_ALL},
    "kernels": {"graph", "runtimes", "devices", "tasks", *STAGES, *ABOVE_ALL},
    "runtimes": {"graph", "devices", *STAGES, *ABOVE_ALL},
    "onnx_import": {"kernels", "runtimes", "devices", "tasks", *STAGES, *ABOVE_ALL},
    "pt2_import": {"kernels", "runtimes", "devices", "tasks", *STAGES, *ABOVE_ALL},
    "devices": {"graph", *STAGES, *ABOVE_ALL},
    "latency": {"compression", "recovery", "search", *ABOVE_ALL},
    "search": {"torch", "graph", "runtimes", "devices", "compression", "recovery", *ABOVE_ALL},
    "compression": {"runtimes", "devices", "recovery", *ABOVE_ALL},
    "recovery": {"runtimes", "devices", "search", *ABOVE_ALL},
    "tasks": {"graph", "runtimes", "devices", *STAGES, *ABOVE_ALL},
    "stages": {"cli", "pipeline"},
    "report": {"cli", "pipeline", "stages"},
}


def imported(path: Path) -> set[str]:
    """First parts under edgeprune, and names of outside packages, that a file imports."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            module = node.module or ""
            modules = [module, *(f"{module}.{alias.name}" for alias in node.names)]
        else:
            continue
        for module in modules:
            parts = module.split(".")
            names.add(parts[1] if parts[0] == "edgeprune" and len(parts) > 1 else parts[0])
    return names


@pytest.mark.parametrize("part", FORBIDDEN)
def test_a_part_imports_nothing_above_it(part: str) -> None:
    for path in (PACKAGE / part).rglob("*.py"):
        assert not imported(path) & FORBIDDEN[part], path.relative_to(PACKAGE)


def test_there_is_a_rule_for_every_part() -> None:
    parts = {path.name for path in PACKAGE.iterdir() if any(path.glob("*.py"))}
    assert parts - {"cli"} == set(FORBIDDEN)


def test_the_command_line_loads_nothing_heavy() -> None:
    heavy = ["numpy", "openvino", "scipy", "torch", "transformers"]
    code = f"import sys, edgeprune.cli.app; print([m for m in {heavy} if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
