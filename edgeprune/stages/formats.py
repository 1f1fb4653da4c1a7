"""What every format would save at the sites of a plan, and which of them do not pay here."""

from collections.abc import Mapping
from typing import Any

from edgeprune.formats import DENSE
from edgeprune.graph.choices import Choices
from edgeprune.latency.model import LatencyModel


def format_rows(
    latency: LatencyModel, choices: Choices, plan: Mapping[str, int]
) -> list[dict[str, Any]]:
    """One row a site that the plan leaves standing, by the measured times.

    Returns:
        Rows with ``layers``, the formats ``chosen`` for them, what that ``saves_us`` against dense
        layers of the same sizes, under ``offered`` the fastest option of every other family with
        what it would save, and under ``refused`` the families that would be slower than dense.
    """
    rows = []
    for name, site in choices.sites.items():
        options = choices.options[name]
        dense_ms = latency.exact_sum_ms({**plan, name: 0})
        saves_us = [
            round(1e3 * (dense_ms - latency.exact_sum_ms({**plan, name: place})), 1)
            for place in range(len(options))
        ]
        if not any(saves_us):
            continue  # nothing is left of the layers
        best: dict[str, int] = {}
        for place, option in enumerate(options):
            family = option[0].family
            if family not in best or saves_us[place] > saves_us[best[family]]:
                best[family] = place
        others = {f: p for f, p in best.items() if f != DENSE.family}
        chosen = plan.get(name, 0)
        rows.append(
            {
                "layers": list(site.layers),
                "chosen": [str(format_) for format_ in options[chosen]],
                "saves_us": saves_us[chosen],
                "offered": {
                    " ".join(dict.fromkeys(map(str, options[place]))): saves_us[place]
                    for place in others.values()
                },
                "refused": [f for f, place in others.items() if saves_us[place] <= 0],
            }
        )
    return rows
