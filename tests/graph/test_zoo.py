"""Architectures of zoos: ours, and the one that stands beside the checkout, where it does."""

import json
from pathlib import Path

import pytest
import zoo_coverage
from zoo_coverage import Checks

ROOT = Path(__file__).parents[2]
ZOO = ROOT.parent / "shared" / "zoo.py"
needs_zoo = pytest.mark.skipif(not ZOO.exists(), reason=f"there is no zoo at {ZOO}")
QUICK = ("densenet", "mlp_mixer", "bert", "llama_gqa", "swin", "lstm_tagger", "mamba", "xlnet")
OURS = ("vision", "dense_vision", "pixel_vision", "language", "audio", "tabular")
OURS_QUICK = (
    ("vision", "tsm"),  # slice assignment into zeros
    ("vision", "pointnet"),  # predicted matrices
    ("pixel_vision", "restormer"),  # a module called output, attention over channels
    ("audio", "conv_tasnet"),  # a norm over channels and time
    ("language", "mamba2_ssd"),  # products of three and four operands
    ("tabular", "graph_attention"),  # a learned vector for each head
    ("tabular", "dlrm"),  # pooled embeddings
)


QUICKLY, WHOLLY = Checks(), Checks(seeds=3, empty=True, sizes=True)


def rows(path: Path, cases: list[str], checks: Checks) -> list[dict]:
    zoo = zoo_coverage.load_zoo(path).CASES
    return [zoo_coverage.run_case(zoo[c]["build"], checks) for c in cases or zoo]


def ours(name: str) -> Path:
    return ROOT / "tools" / "zoo" / f"{name}.py"


@needs_zoo
@pytest.mark.parametrize("name", QUICK)
def test_quick_cases_are_exact_and_fully_prunable(name: str) -> None:
    (row,) = rows(ZOO, [name], QUICKLY)
    assert row["outcome"] in zoo_coverage.GOOD, row
    assert row["share_prunable"] == 1.0, row


@pytest.mark.parametrize(("file", "name"), OURS_QUICK)
def test_quick_cases_of_our_own_are_exact(file: str, name: str) -> None:
    (row,) = rows(ours(file), [name], QUICKLY)
    assert row["outcome"] in zoo_coverage.GOOD, row
    assert row["reaction"] > 1e-3, row


@needs_zoo
@pytest.mark.slow
def test_the_whole_zoo_is_exact_at_random_ratios_and_when_emptied() -> None:
    found = rows(ZOO, [], WHOLLY)
    assert len(found) == 52
    assert [row for row in found if row["outcome"] not in zoo_coverage.GOOD] == []
    assert min(row["share_prunable"] for row in found) == 1.0
    assert [row for row in found if "differs" in row["at_other_sizes"]] == []


@pytest.mark.slow
@pytest.mark.parametrize("file", OURS)
def test_our_own_zoo_is_exact_at_random_ratios_and_when_emptied(file: str) -> None:
    found = rows(ours(file), [], WHOLLY)
    assert [row for row in found if row["outcome"] not in zoo_coverage.GOOD] == []


def test_the_table_says_what_became_of_every_case(tmp_path: Path, monkeypatch) -> None:
    """One that is fine, one that cannot be captured and one that never ends."""
    zoo = tmp_path / "cases.py"
    zoo.write_text(
        "import time\n"
        "import torch\n"
        "from torch import nn\n"
        "def fine():\n"
        "    layers = nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)\n"
        "    return nn.Sequential(*layers), (torch.randn(3, 4),)\n"
        "class Branch(nn.Module):\n"
        "    def forward(self, x):\n"
        "        return x if x.sum() > 0 else -x\n"
        "def branch():\n"
        "    return Branch(), (torch.randn(3, 4),)\n"
        "def endless():\n"
        "    time.sleep(1000)\n"
        "CASES = {f.__name__: {'build': f} for f in (fine, branch, endless)}\n"
    )
    found = tmp_path / "rows.json"
    arguments = [
        "zoo_coverage",
        "--zoo",
        str(zoo),
        "--json",
        str(found),
        "--limit",
        "20",
        "--deploy",
        "--write-back",
    ]
    monkeypatch.setattr("sys.argv", arguments)
    assert zoo_coverage.main() == 1
    fine, branch, endless = json.loads(found.read_text())
    assert (fine["outcome"], fine["openvino"], fine["own_module"]) == ("exact", "equal", "equal")
    assert fine["share_prunable"] == 1.0 and 0 < fine["params_removed"] < 1
    assert (branch["outcome"], branch["step"]) == ("failed", "capture")
    assert "cases.py" in branch["reason"]
    assert endless["outcome"] == "failed" and "20 s" in endless["reason"]
