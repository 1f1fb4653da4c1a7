"""Capturing modules: dynamic shapes, clean graphs, errors that name the place."""

from pathlib import Path
from typing import Any

import networks
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from edgeprune.errors import CaptureError
from edgeprune.graph.capture import capture
from edgeprune.graph.network import analyse
from edgeprune.graph.ops import is_mutable


def shrunk_half(captured):
    network = analyse(captured)
    keep = {n: range(s.units // 2 or 1) for n, s in network.structures.items()}
    return network.shrink(keep)


def test_differing_dimensions_stay_dynamic_through_shrinking() -> None:
    model, _ = networks.CASES["encoder"]()
    captured = capture(model, (torch.randint(0, 20, (1, 7)),), (torch.randint(0, 20, (3, 5)),))
    assert not captured.notes
    shrunk = shrunk_half(captured)
    for shape in ((1, 7), (3, 5), (4, 11), (2, 2)):
        ids = torch.randint(0, 20, shape)
        torch.testing.assert_close(captured.module(ids)[0], model(ids))
        assert shrunk(ids)[0].shape == (*shape, 5)


def test_an_emptied_layer_follows_a_dynamic_batch() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = nn.Linear(4, 6), nn.Linear(6, 5), nn.Linear(4, 5)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            y = self.b(self.a(x).relu())
            return torch.cat([y, self.c(x)], 1), x + 1

    model = Net().eval()
    network = analyse(capture(model, (torch.randn(1, 4),), (torch.randn(3, 4),)))
    (name,) = [n for n, s in network.structures.items() if s.removable]
    shrunk = network.shrink({name: []})
    for batch in (1, 2, 5):
        joined, _ = shrunk(torch.randn(batch, 4))
        torch.testing.assert_close(joined[:, :5], model.b.bias.expand(batch, 5))


def test_a_model_that_fixes_its_batch_is_captured_static_with_a_note() -> None:
    class Net(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.reshape(2, -1) if x.shape[0] == 2 else x * 3

    captured = capture(Net(), (torch.randn(1, 4),), (torch.randn(2, 4),))
    assert any("static" in note for note in captured.notes)
    x = torch.randn(1, 4)
    torch.testing.assert_close(captured.module(x)[0], x * 3)


def test_control_flow_on_values_names_the_line() -> None:
    class Net(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            if x.sum() > 0:
                return x
            return -x

    with pytest.raises(CaptureError, match=r"test_capture\.py:\d+") as caught:
        capture(Net(), (torch.randn(2, 3),))
    assert "\n" not in str(caught.value)


def test_the_line_is_named_wherever_the_code_lies(tmp_path: Path) -> None:
    file = tmp_path / "edgeprune" / "torch" / "net.py"
    file.parent.mkdir(parents=True)
    code = "def half(x):\n    return x / 2 if x.max() > 0 else x\n"
    file.write_text(code, encoding="utf-8")
    namespace: dict[str, Any] = {}
    exec(compile(code, str(file), "exec"), namespace)

    class Net(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return namespace["half"](x)

    with pytest.raises(CaptureError, match=r"torch.net\.py:2"):
        capture(Net(), (torch.randn(2, 3),))


@pytest.mark.parametrize(
    ("inputs", "message"),
    [((), "empty"), ((3,), "int"), (([1.0],), "list")],
)
def test_inputs_that_are_not_tensors_are_refused(inputs: tuple, message: str) -> None:
    with pytest.raises(CaptureError, match=message):
        capture(nn.Linear(3, 3), inputs)


def test_batches_unlike_the_example_are_refused() -> None:
    with pytest.raises(CaptureError, match="int64"):
        capture(nn.Linear(3, 3), (torch.randn(1, 3),), (torch.ones(2, 3, dtype=torch.long),))


def test_weight_norm_is_baked_into_a_copy() -> None:
    layer = weight_norm(nn.Linear(4, 6))
    model = nn.Sequential(layer, nn.ReLU(), nn.Linear(6, 2)).eval()
    x = torch.randn(3, 4)
    want = model(x)
    captured = capture(model, (x,))
    assert "0.weight" in dict(captured.module.named_parameters())
    assert any("0.weight" in note for note in captured.notes)
    torch.testing.assert_close(captured.module(x)[0], want)
    torch.testing.assert_close(model(x), want)
    assert "0.parametrizations.weight.original0" in dict(model.named_parameters())


def test_nodes_are_named_after_modules_and_know_their_line() -> None:
    model, inputs = networks.CASES["encoder"]()
    graph = capture(model, inputs).module.graph
    nodes = {n.name: n for n in graph.nodes}
    assert len(nodes) == len(graph.nodes)
    for name in ("q", "up", "norm1", "embed", "scaled_dot_product_attention", "gelu"):
        assert nodes[name].op == "call_function"
        assert nodes[name].meta["source"].startswith("networks.py:")
    assert tuple(nodes["up"].meta["val"].shape) == (1, 7, 20)
    assert nodes["up"].meta["module_path"] == "up"


def test_in_place_writes_are_repeatable() -> None:
    model, inputs = networks.CASES["constant_written_in_place"]()
    module = capture(model, inputs).module
    want = model(*inputs)
    for _ in range(3):
        torch.testing.assert_close(module(*inputs)[0], want)


def test_outputs_are_a_flat_tuple() -> None:
    class Net(nn.Module):
        def forward(self, x: Tensor) -> dict[str, object]:
            return {"a": x + 1, "b": (x * 2, [x - 1])}

    x = torch.randn(2)
    a, b, c = capture(Net(), (x,)).module(x)
    torch.testing.assert_close((a, b, c), (x + 1, x * 2, x - 1))


def test_training_mode_does_not_leak_into_the_graph() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Dropout(0.5)).train()
    x = torch.randn(2, 3, 4, 4)
    captured = capture(model, (x,))
    assert model.training and model[2].training
    torch.testing.assert_close(captured.module(x)[0], model.eval()(x))


def test_shapes_that_depend_on_values_freeze_only_what_they_touch() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = nn.Linear(4, 8), nn.Linear(8, 6), nn.Linear(6, 3)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            y = self.b(self.a(x).relu())
            return self.c(y), torch.nonzero(y > 0)

    model = Net()
    x = torch.randn(2, 4)
    network = analyse(capture(model, (x,)))
    touched = {slot.tensor for s in network.structures.values() for slot in s.slots}
    assert touched == {"a.weight", "a.bias", "b.weight"}
    (name,) = network.structures
    shrunk = network.shrink({name: [1, 4]})
    with torch.no_grad():
        model.b.weight[:, [0, 2, 3, 5, 6, 7]] = 0
    for have, want in zip(shrunk(x), model(x), strict=True):
        torch.testing.assert_close(have, want)


class _Writes(nn.Module):
    """Writes by one kind of view, between readers of before and of after."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.layer = nn.Linear(6, 8)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        y = self.layer(x)
        seen, part = y[:, 1:3], y[:, 2:6]
        before = (seen * 1, part * 1)
        if self.kind == "slice":
            y[:, :3] += x[:, :3]
        elif self.kind == "from the end":
            y[:, -5:-2].mul_(2)
        elif self.kind == "steps":
            y[:, 1:7:3] = x[:, :2]
            y[::3] *= 2
            y[:, 5:3:2] = 1.0
        elif self.kind == "select":
            y[-1] = 3.0
        elif self.kind == "middle":
            y[1, 2] = y[0, 1]
        elif self.kind == "views of views":
            y.view(4, 2, 4).transpose(1, 2)[:, 1:3].add_(1)
        elif self.kind == "copies":
            (y := y.t().contiguous().t().contiguous()[:, :].contiguous())[0, 1:] += 1
        elif self.kind == "one of several":
            best, _ = y.topk(4)
            best /= best.sum(-1, keepdim=True)
            y = torch.cat([best, y], 1)
        elif self.kind == "result":
            part.clamp_(min=0).unsqueeze(0).mul_(3)
        elif self.kind == "twice":
            y[:, :3].zero_()
            y[:, 2:].neg_()
        elif self.kind == "pieces":
            y = y.new_empty(4, 12)
            y[:, :6] = x
            y[:, 6:] = x[:, :1]
        return (*before, y.reshape(-1) * 1, seen + 1, part.relu(), y.relu_().sum(1))


WRITES = (
    "slice",
    "from the end",
    "steps",
    "select",
    "middle",
    "views of views",
    "result",
    "twice",
    "pieces",
)


@pytest.mark.parametrize("kind", WRITES)
def test_writes_by_views_become_values(kind: str) -> None:
    model, x = _Writes(kind), torch.randn(4, 6)
    module = capture(model, (x,)).module
    assert [n.name for n in module.graph.nodes if is_mutable(n)] == []
    for have, want in zip(module(x), model(x), strict=True):
        torch.testing.assert_close(have, want)


def test_writes_by_views_keep_dynamic_shapes() -> None:
    model = _Writes("slice")
    module = capture(model, (torch.randn(4, 6),), (torch.randn(7, 6),)).module
    x = torch.randn(3, 6)
    for have, want in zip(module(x), model(x), strict=True):
        torch.testing.assert_close(have, want)


@pytest.mark.parametrize("kind", ["reshape", "input"])
def test_writes_that_cannot_be_put_back_still_happen(kind: str) -> None:
    class Net(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            y = x * 2 if kind == "reshape" else x
            y.reshape(2, 3, 2)[:, 1] += 1
            return y + 1

    x = torch.randn(4, 3)
    module = capture(Net(), (x,)).module
    torch.testing.assert_close(module(x.clone())[0], Net()(x.clone()))


def test_a_model_that_is_another_while_exported_is_refused() -> None:
    class Net(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x * 2 if torch.compiler.is_exporting() else x * 3

    with pytest.raises(CaptureError, match="takes another path while it is exported"):
        capture(Net(), (torch.ones(3),))


def test_random_results_are_not_compared() -> None:
    class Net(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x + torch.randn_like(x)

    assert any("each time" in note for note in capture(Net(), (torch.ones(3),)).notes)


def test_a_write_by_one_storage_may_read_a_view_of_a_later_one() -> None:
    class Net(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            whole = torch.zeros(4, 6)
            y = x * 2
            whole[:, :3] = y.to(torch.float32)
            y.add_(1)
            return whole + 1, y * 1

    x = torch.randn(4, 3)
    module = capture(Net(), (x,)).module
    assert [n.name for n in module.graph.nodes if is_mutable(n)] == []
    torch.testing.assert_close(module(x), Net()(x))


def test_a_graph_that_does_not_run_is_told_in_one_line() -> None:
    class Net(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.vmap(lambda row: row + torch.zeros(row.shape[0]).sum())(x)

    with pytest.raises(CaptureError, match="does not run: Either your tensor"):
        capture(Net(), (torch.ones(4, 4),))


@pytest.mark.parametrize("name", ["graph", "meta", "code"])
def test_a_part_called_like_one_of_a_graph_is_refused(name: str) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.add_module(name, nn.Linear(4, 2))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return getattr(self, name)(x)

    inputs = (torch.randn(1, 4),)
    with pytest.raises(CaptureError, match=f"a part of Net is called '{name}'.*wrap the model"):
        capture(Net(), inputs)

    class Wrapped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = Net()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.body(x)

    assert capture(Wrapped(), inputs).module(*inputs)[0].shape == (1, 2)
