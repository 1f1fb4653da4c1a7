"""Architectures of the zoo, where it stands beside the checkout."""

from pathlib import Path

import pytest
import zoo_coverage

ZOO = Path(__file__).parents[2].parent / "shared" / "zoo.py"
needs_zoo = pytest.mark.skipif(not ZOO.exists(), reason=f"there is no zoo at {ZOO}")
QUICK = ("densenet", "tcn_1d", "bert", "llama_gqa", "swin", "lstm_tagger", "mamba")


def rows(cases: list[str], seeds: int, empty: bool) -> list[dict]:
    zoo = zoo_coverage.load_zoo(ZOO).CASES
    return [zoo_coverage.run_case(c, zoo[c]["build"], seeds, empty) for c in cases or zoo]


@needs_zoo
@pytest.mark.parametrize("name", QUICK)
def test_quick_cases_are_exact_and_fully_prunable(name: str) -> None:
    (row,) = rows([name], 1, empty=False)
    assert row["outcome"] == "exact", row
    assert row["share_prunable"] == 1.0, row


@needs_zoo
@pytest.mark.slow
def test_the_whole_zoo_is_exact_at_random_ratios_and_when_emptied() -> None:
    found = rows([], 3, empty=True)
    assert len(found) == 52
    assert [row for row in found if row["outcome"] != "exact"] == []
    shares = sorted(row["share_prunable"] for row in found)
    assert shares[len(shares) // 2] == 1.0
