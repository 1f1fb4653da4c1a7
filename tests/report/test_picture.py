"""The picture of a network: what stands in it, and that nothing hides anything else."""

import re
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from torch import nn

from edgeprune.cli.app import run
from edgeprune.graph.capture import capture
from edgeprune.graph.network import Network, analyse
from edgeprune.graph.ops import op_name
from edgeprune.report.layer_lists import short_list
from edgeprune.report.picture.colours import colour
from edgeprune.report.picture.layering import lay_out
from edgeprune.report.picture.network_picture import draw_network
from edgeprune.report.picture.wrapping import wrap
from edgeprune.stages.inspection_record import inspection_record

sys.path.insert(0, str(Path(__file__).parents[1] / "graph"))
from networks import CASES

LAYERS = ("linear", "conv1d", "conv2d")
SVG = "{http://www.w3.org/2000/svg}"
TASK = str(Path(__file__).parents[1] / "inspected_task.py")


def drawn(network: Network, task: str = "some") -> tuple[ElementTree.Element, dict[str, Any]]:
    names = list(network.structures)
    record = inspection_record(network, names, ("all",), None)
    picture = draw_network(network, {"task": task, "device": None, **record})
    return ElementTree.fromstring(picture), record


def groups(picture: ElementTree.Element, mark: str) -> list[ElementTree.Element]:
    return [g for g in picture.iter(f"{SVG}g") if mark in g.attrib["class"].split()]


def title(element: ElementTree.Element) -> str:
    found = element.find(f"{SVG}title")
    assert found is not None and found.text
    return found.text


def texts(element: ElementTree.Element) -> list[str]:
    return [t.text or "" for t in element.iter(f"{SVG}text")]


def reads(node: torch.fx.Node, parameter: str) -> bool:
    return any(source.target == parameter for source in node.all_input_nodes)


@pytest.mark.parametrize("name", CASES)
def test_every_layer_has_one_box_and_every_structure_its_colour(name: str) -> None:
    model, inputs = CASES[name]()
    network = analyse(capture(model, inputs))
    picture, record = drawn(network)
    boxes = groups(picture, "box")
    heads = [title(box).partition(":")[0] for box in boxes]
    used = dict(network.captured.module.named_parameters())
    nodes = list(network.captured.module.graph.nodes)
    for path, module in model.named_modules():
        if isinstance(module, nn.Linear | nn.Conv2d | nn.Conv1d) and f"{path}.weight" in used:
            readers = [n for n in nodes if reads(n, f"{path}.weight")]
            calls = [n for n in readers if op_name(n) in LAYERS]
            # A weight that is computed with first stands in the box of its layer, too.
            assert max(1, len(calls)) <= heads.count(path) <= len(readers), path
    entries = groups(picture, "entry")
    assert [texts(e)[1].partition(" (")[0] for e in entries] == list(network.structures)
    for number, (entry, row) in enumerate(zip(entries, record["structures"], strict=True), 1):
        chip = entry.find(f"{SVG}rect")
        assert chip is not None and chip.attrib["fill"] == colour(number)
        marked = [box for box in boxes if f"s{number}" in box.attrib["class"].split()]
        assert marked, row["name"]
        assert all(row["name"] in title(box) for box in marked)


def test_a_layer_shows_what_it_reads_on_its_left_and_what_it_makes_on_its_right() -> None:
    net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 3))
    picture, _ = drawn(analyse(capture(net, (torch.zeros(2, 4),))))
    middle = next(box for box in groups(picture, "box") if title(box).startswith("2:"))
    bands = [r for r in middle.iter(f"{SVG}rect") if r.attrib.get("class", "").startswith("h")]
    left, right = sorted(bands, key=lambda band: float(band.attrib["x"]))
    assert (left.attrib["fill"], right.attrib["fill"]) == (colour(1), colour(2))
    assert "reads 0:neurons" in title(middle) and "makes 2:neurons" in title(middle)


def test_a_frozen_layer_says_why() -> None:
    model, inputs = CASES["unknown_operator"]()
    picture, _ = drawn(analyse(capture(model, inputs)))
    frozen = [box for box in groups(picture, "box") if "nothing of it can be pruned" in title(box)]
    assert len(frozen) == 1 and "fft_fft at networks.py:" in title(frozen[0])


def test_names_are_escaped() -> None:
    net = nn.Sequential()
    for name, layer in (("a<b>&", nn.Linear(4, 8)), ("it's", nn.Linear(8, 2))):
        net.add_module(name, layer)
    picture, _ = drawn(analyse(capture(net, (torch.zeros(2, 4),))), task="<script>&")
    assert "a<b>&" in [title(box).partition(":")[0] for box in groups(picture, "box")]
    assert "<script>&: what can be pruned" in texts(picture)


def test_files_are_pictures_and_pages(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("p.svg", "p.html"):
        assert run(["inspect", "--task", TASK, "--out", str(tmp_path / "new" / name)]) == 0
    picture = (tmp_path / "new" / "p.svg").read_text()
    page = (tmp_path / "new" / "p.html").read_text()
    assert ElementTree.fromstring(picture).tag == f"{SVG}svg"
    assert picture in page and "svg:has(.h12:hover)" in page
    for text in (picture, page):
        assert not re.findall(r"<script|href=|src=|url\(", text)
    # Each of the network's nine blocks has a frame.
    assert all(f">blocks.{number}</text>" in picture for number in range(9))


@st.composite
def graphs(draw: st.DrawFn) -> tuple[dict[str, tuple[float, float]], list[tuple[str, str]]]:
    count = draw(st.integers(1, 9))
    names = [f"n{i}" for i in range(count)]
    sides = st.floats(1, 100)
    sizes = {name: (draw(sides), draw(sides)) for name in names}
    pairs = [(a, b) for i, a in enumerate(names) for b in names[i + 1 :]]
    return sizes, [pair for pair in pairs if draw(st.booleans())]


@settings(max_examples=60, deadline=None)
@given(graphs())
def test_boxes_stand_apart_and_lines_run_to_the_right(
    graph: tuple[dict[str, tuple[float, float]], list[tuple[str, str]]],
) -> None:
    sizes, edges = graph
    layout = lay_out(sizes, edges)
    places = list(layout.places.values())
    for i, a in enumerate(places):
        assert a.x >= -1e-6 and a.x + a.width <= layout.width + 1e-6
        assert a.y >= -1e-6 and a.y + a.height <= layout.height + 1e-6
        for b in places[:i]:
            beside = a.x + a.width <= b.x + 1e-6 or b.x + b.width <= a.x + 1e-6
            below = a.y + a.height <= b.y + 1e-6 or b.y + b.height <= a.y + 1e-6
            assert beside or below
    for (a, b), points in layout.routes.items():
        start, end = layout.places[a], layout.places[b]
        assert points[0] == (start.x + start.width, start.middle)
        assert points[-1] == (end.x, end.middle)
        assert [x for x, _ in points] == sorted(x for x, _ in points)
        for (x, y), (right, _) in zip(points[1:-1:2], points[2:-1:2], strict=True):
            for place in places:  # where a line passes a column, no box is in its way
                inside = x < place.x + place.width and place.x < right
                assert not inside or not place.y - 1e-6 < y < place.y + place.height + 1e-6


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.floats(10, 900), st.floats(10, 300), st.booleans()), max_size=20))
def test_blocks_follow_one_another_in_lines(blocks: list[tuple[float, float, bool]]) -> None:
    sizes = [(width, height) for width, height, _ in blocks]
    lines = wrap(sizes, [new for _, _, new in blocks], 20.0, 30.0)
    for (a, (width, _)), (b, (_, height)), (_, _, new) in zip(
        zip(lines.blocks, sizes), zip(lines.blocks[1:], sizes[1:]), blocks[1:]
    ):
        if a.line == b.line:
            assert b.x >= a.x + width + 20.0 - 1e-6 and not new
        else:
            assert b.line == a.line + 1 and b.x == 0.0
            assert b.y >= lines.bottoms[a.line] + 30.0 - 1e-6
        assert b.y + height <= lines.bottoms[b.line] + 1e-6


def test_colours_differ() -> None:
    def channels(number: int) -> list[int]:
        return [int(colour(number)[i : i + 2], 16) for i in (1, 3, 5)]

    for a in range(1, 41):
        for b in range(1, a):
            apart = sum(abs(x - y) for x, y in zip(channels(a), channels(b), strict=True))
            assert apart > (60 if a - b < 3 else 8), (a, b)


@pytest.mark.parametrize(
    ("names", "path", "expected"),
    [
        (["a", "b"], "", "a, b"),
        (["e.0.q", "e.1.q", "e.2.q", "e.0.k"], "", "e.0-2.q, e.0.k"),
        (["e.0.q", "e.2.q"], "", "e.*.q"),
        (["s.0.b.0", "s.0.b.1", "s.1.b.0"], "", "s.*.b.*"),
        (["e.0.q", "e.0.k", "out"], "e.0", ".q, .k and 1 more"),
        (["e0.q", "e1.q"], "", "e0.q, e1.q"),
        ([], "", ""),
    ],
)
def test_lists_of_layers_are_short(names: list[str], path: str, expected: str) -> None:
    assert short_list(names, path) == expected
