"""A graph subnet, and what a file gives back, take every size that the network takes, or name the axis that is bound."""

from __future__ import annotations

import copy
import io
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import geta_nb as gt
from geta_nb.errors import ConfigError, InputError
from geta_nb.subnet.candidates import unrounded
from geta_nb.subnet.graph_net import input_sizes


class Text(nn.Module):
    """Masks nothing and pools by hand: a sum over the number of positions."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.conv, self.head = nn.Embedding(50, 24), nn.Conv1d(24, 32, 3, padding=1), nn.Linear(32, 3)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.conv(self.embed(tokens).transpose(1, 2)).relu()
        return self.head(x.sum(2) / x.shape[2])


class Pixels(nn.Module):
    """A decoder that goes back to the size of its input, as any segmenter does."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = nn.Conv2d(3, 16, 3, 2, 1), nn.Conv2d(16, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return F.interpolate(self.head(self.stem(x).relu()), size=x.shape[-2:])


class Halves(nn.Module):
    """Comes out as a graph: one half of the channels has a layer of its own."""

    def __init__(self, sides: int | None = None) -> None:
        super().__init__()
        self.sides = sides
        self.stem, self.one, self.head = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(8, 8, 1), nn.Conv2d(16, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.stem(x).relu().chunk(2, 1)
        y = torch.cat([a, self.one(b)], 1)
        if self.sides is not None:
            y = y.view(x.shape[0], 16, self.sides, self.sides)
        return self.head(y) / y.shape[2]


def cut(model: nn.Module, x: Tensor, **options: object) -> tuple[nn.Module, nn.Module]:
    """Return a masked network and its subnet."""
    geta = gt.GETA(model.eval(), x, **options)
    geta.mask(range(2, len(geta.groups), 5))  # not the same of both halves
    return model, geta.construct_subnet()


@torch.no_grad()
def assert_same(model: nn.Module, other: nn.Module, x: Tensor) -> None:
    torch.testing.assert_close(other(x), model(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("quantize", [None, gt.QuantConfig()])
@pytest.mark.parametrize(
    ("model", "x", "others"),
    [
        (Text, torch.randint(0, 50, (4, 10)), [torch.randint(0, 50, (4, 20)), torch.randint(0, 50, (1, 3))]),
        (Pixels, torch.randn(2, 3, 32, 32), [torch.randn(2, 3, 48, 64), torch.randn(1, 3, 17, 5)]),
        (Halves, torch.randn(2, 3, 8, 8), [torch.randn(2, 3, 12, 20), torch.randn(1, 3, 1, 1)]),
    ],
)
def test_a_loaded_network_takes_other_sizes(model, x, others, quantize, tmp_path: Path) -> None:
    torch.manual_seed(0)
    net, subnet = cut(model(), x, quantize=quantize)
    loaded = gt.load(gt.save(subnet, tmp_path / "net"))
    for other in (x, *others):
        assert_same(net, subnet, other)
        assert_same(net, loaded, other)
    again = gt.load(gt.save(loaded, tmp_path / "again"))
    assert_same(net, again, others[0])
    assert (tmp_path / "net").read_bytes() == (tmp_path / "again").read_bytes()


def test_an_axis_that_the_network_binds_is_named_and_shown(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net, subnet = cut(Halves(sides=8), torch.randn(2, 3, 8, 8))
    assert subnet.geta_info.kind == "graph"
    loaded = gt.load(gt.save(subnet, tmp_path / "net"))
    for graph in (subnet, loaded, copy.deepcopy(loaded), pickled(loaded)):
        assert_same(net, graph, torch.randn(5, 3, 8, 8))
        with pytest.raises(InputError, match=r"at: +input x, axes 0, 2, 3\n +expected: .* == \(1024\*x.shape\[0\]\)\n"):
            graph(torch.randn(2, 3, 16, 16))
        assert "takes x: a × 3 × " in repr(graph) and "takes x: a × 3 × " in repr(graph.geta_info)
        assert "\n" not in repr(graph) and str(graph) == repr(graph)


def pickled(net: nn.Module) -> nn.Module:
    buffer = io.BytesIO()
    torch.save(net, buffer)
    buffer.seek(0)
    again: nn.Module = torch.load(buffer, weights_only=False)
    return again


def test_a_network_whose_channels_are_checked_says_which(tmp_path: Path) -> None:
    _, subnet = cut(Pixels(), torch.randn(2, 3, 32, 32))
    with pytest.raises(InputError, match=r"at: +input x, axis 1\n +expected: 3\n +got: +4"):
        gt.load(gt.save(subnet, tmp_path / "net"))(torch.randn(2, 4, 32, 32))


def test_without_dynamic_the_file_is_for_the_batch_alone_and_says_so(tmp_path: Path) -> None:
    net, subnet = cut(Text(), torch.randint(0, 50, (4, 10)))
    assert subnet.geta_info.kind == "native"
    loaded = gt.load(gt.save(subnet, tmp_path / "net", dynamic=False))
    assert_same(net, loaded, torch.randint(0, 50, (3, 10)))
    assert "takes tokens: a × 10" in repr(loaded)
    with pytest.raises(InputError, match=r"at: +input tokens, axis 1\n +expected: 10\n +got: +20"):
        loaded(torch.randint(0, 50, (4, 20)))


def test_a_geta_that_is_not_dynamic_makes_graphs_files_and_reports_of_its_sizes(tmp_path: Path) -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 3, 8, 8)
    open_geta, geta = (gt.GETA(Halves().eval(), x, dynamic=dynamic) for dynamic in (True, False))
    for each, axes in ((open_geta, [0, 2, 3]), (geta, [0])):
        each.mask(range(2, len(each.groups), 5))
        subnet = each.construct_subnet()
        assert subnet.geta_info.kind == "graph"
        report = each.report(subnet)
        assert report.to_dict()["dynamic_axes"] == {"x": axes}
        assert f"x: {', '.join(map(str, axes))}" in report._repr_mimebundle_()["text/html"]
        assert_same(each.model, subnet, torch.randn(5, 3, 8, 8))
    with pytest.raises(InputError, match=r"at: +input x, axis 2\n +expected: 8\n +got: +12"):
        subnet(torch.randn(2, 3, 12, 20))
    twin = copy.deepcopy(geta)
    assert not twin.dynamic and twin.report(twin.construct_subnet()).to_dict()["dynamic_axes"] == {"x": [0]}
    geta.save_checkpoint(tmp_path / "run")
    assert not gt.GETA.resume(tmp_path / "run", Halves(), x).dynamic


def test_files_of_a_native_subnet_are_as_geta_was_told_unless_they_are_told_otherwise(tmp_path: Path) -> None:
    x = torch.randint(0, 50, (4, 10))
    _, subnet = cut(Text(), x, dynamic=False)
    assert subnet.geta_info.kind == "native"
    assert gt.GETA(Text(), x).report(cut(Text(), x)[1]).to_dict()["dynamic_axes"] is None
    for options, words in (({}, "a × 10"), ({"dynamic": True}, "a × b"), ({"dynamic": False}, "a × 10")):
        assert f"takes tokens: {words}" in repr(gt.load(gt.save(subnet, tmp_path / "net", **options)))


@pytest.mark.parametrize("value", [None, 1, "yes"])
def test_dynamic_is_a_truth_value(value: object) -> None:
    with pytest.raises(ConfigError, match=r"GETA: dynamic\.\n +expected: True or False"):
        gt.GETA(Text(), torch.randint(0, 50, (4, 10)), dynamic=value)


class Branching(nn.Module):
    """Goes another way where a sample comes alone, which is the same; and where it is long, which is not."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 8), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x).relu()
        y = y.sum(0, keepdim=True) if x.shape[0] == 1 else y
        return self.second(y) if x.shape[1] < 9 else self.second(y) * 2


def test_a_way_for_one_sample_is_tried_and_a_way_for_many_is_refused(tmp_path: Path) -> None:
    net, subnet = cut(Branching(), torch.randn(3, 5, 6), quantize=None)
    plain = gt.load(gt.save(subnet, tmp_path / "plain", dynamic=False))
    for batch in (1, 7):
        assert_same(net, plain, torch.randn(batch, 5, 6))
    loaded = gt.load(gt.save(subnet, tmp_path / "net"))
    for shape in ((1, 5, 6), (4, 8, 6), (1, 1, 6)):
        assert_same(net, loaded, torch.randn(shape))
    with pytest.raises(InputError, match=r"at: +input x, axis 1\n +expected: x.shape\[1\] < 9"):
        loaded(torch.randn(3, 9, 6))


@pytest.mark.parametrize("model", [Text, Halves, Branching])
@pytest.mark.parametrize("dynamic", [False, True])
def test_one_example_is_enough_for_every_batch(model, dynamic: bool, tmp_path: Path) -> None:
    """Torch traces a batch of one as two, and takes for granted that it never is one."""
    x = {"Text": torch.randint(0, 50, (1, 10)), "Halves": torch.randn(1, 3, 8, 8), "Branching": torch.randn(1, 5, 6)}[model.__name__]
    net, subnet = cut(model(), x, quantize=None)
    loaded = gt.load(gt.save(subnet, tmp_path / "net", dynamic=dynamic))
    for batch in (1, 4):
        other = x.flip(-1).repeat(batch, *[1] * (x.dim() - 1))
        assert_same(net, subnet, other)
        assert_same(net, loaded, other)


def test_a_subnet_for_any_size_is_compressed_again(tmp_path: Path) -> None:
    torch.manual_seed(0)
    _, subnet = cut(Halves(), torch.randn(2, 3, 8, 8), quantize=None)
    again, smaller = cut(subnet, torch.randn(2, 3, 8, 8), quantize=None)
    assert smaller.geta_info.kind == "graph" and sum(p.numel() for p in smaller.parameters()) < sum(p.numel() for p in again.parameters())
    assert_same(again, gt.load(gt.save(smaller, tmp_path / "net")), torch.randn(3, 3, 10, 6))


def test_saving_changes_neither_the_subnet_nor_its_inputs(tmp_path: Path) -> None:
    x = torch.randn(2, 3, 32, 32)
    _, subnet = cut(Pixels(), x, quantize=gt.QuantConfig())
    before = {name: tensor.clone() for name, tensor in subnet.state_dict().items()}
    hooks = [dict(module._forward_pre_hooks) for module in subnet.modules()]
    subnet.train()
    gt.save(subnet, tmp_path / "net")
    assert all(module.training for module in subnet.modules())
    assert [dict(module._forward_pre_hooks) for module in subnet.modules()] == hooks
    assert before.keys() == subnet.state_dict().keys() and all(torch.equal(before[k], v) for k, v in subnet.state_dict().items())
    assert not hasattr(x, "_dynamo_dynamic_indices") and x.shape == (2, 3, 32, 32)
    with torch.no_grad():
        next(subnet.parameters()).mul_(2)  # what trains on is what is saved: off its grid it is refused
    with pytest.raises(gt.GetaError):
        gt.save(subnet, tmp_path / "other")


def test_files_from_before_sizes_were_written_refuse_none(tmp_path: Path) -> None:
    net, subnet = cut(Halves(), torch.randn(2, 3, 8, 8), quantize=None)
    assert subnet.geta_info.kind == "graph"
    subnet._input_sizes = None
    loaded = gt.load(gt.save(subnet, tmp_path / "net"))
    assert input_sizes(loaded) is None
    assert_same(net, loaded, torch.randn(3, 3, 9, 9))


def test_a_network_that_writes_into_its_input_is_cut_and_the_example_stays() -> None:
    """A recurrent cache that is updated in place."""

    class Step(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.o = nn.Linear(8, 16), nn.Linear(16, 8), nn.Linear(8, 3)

        def forward(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
            h = self.b(torch.relu(self.a(x))) + state[0]
            state[0] = h
            return self.o(h), state

    torch.manual_seed(0)
    model, args = Step().eval(), (torch.rand(2, 8), torch.zeros(1, 2, 8))
    geta = gt.GETA(model, args, quantize=None)
    geta.mask([0, 1, 2])
    subnet = geta.construct_subnet()
    assert not args[1].any() and not geta.example_inputs[1].any()
    with torch.no_grad():
        ours, theirs = torch.ones(1, 2, 8), torch.ones(1, 2, 8)
        torch.testing.assert_close(subnet(args[0], ours)[0], model(args[0], theirs)[0])
        torch.testing.assert_close(ours, theirs)
    assert not torch.equal(ours, torch.ones(1, 2, 8)) and subnet.a.out_features == 13


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_a_subnet_that_was_cast_since_takes_every_size_and_knows_its_modes(dtype: torch.dtype, tmp_path: Path) -> None:
    torch.manual_seed(0)
    _, subnet = cut(Text(), torch.randint(0, 50, (4, 10)), quantize=None)
    _, pixels = cut(nn.Sequential(Pixels(), nn.Dropout(0.5)), torch.randn(2, 3, 32, 32), quantize=None)
    for net, x in ((subnet, torch.randint(0, 50, (3, 17))), (pixels, torch.randn(3, 3, 20, 12, dtype=dtype))):
        loaded = gt.load(gt.save(net.to(dtype), tmp_path / "net"))
        with torch.no_grad():
            torch.testing.assert_close(loaded(x), net.eval()(x))
    with pytest.raises(gt.GetaError, match="Dropout"):
        loaded.train()


def test_nested_inputs_are_checked_by_name_in_whatever_order_they_come(tmp_path: Path) -> None:
    class Nested(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two, self.head = nn.Linear(4, 8), nn.Linear(6, 8), nn.Linear(8, 2)

        def forward(self, batch: dict[str, Tensor], *, scale: Tensor, twice: bool = False) -> Tensor:
            y = self.head((self.one(batch["a"]) + self.two(batch["b"])).relu()) * scale
            return y * 2 if twice else y

    model, batch = Nested().eval(), {"a": torch.randn(3, 4), "b": torch.randn(3, 6)}
    geta = gt.GETA(model, (batch,), example_kwargs={"twice": True, "scale": torch.ones(3, 1)}, quantize=None)
    geta.mask([0, 3])
    loaded = gt.load(gt.save(geta.construct_subnet(), tmp_path / "net"))
    other = {"b": torch.randn(5, 6), "a": torch.randn(5, 4)}
    with torch.no_grad():
        expected = model(other, scale=torch.full((5, 1), 3.0), twice=True)
        torch.testing.assert_close(loaded(other, scale=torch.full((5, 1), 3.0), twice=True), expected)
        torch.testing.assert_close(loaded(twice=True, scale=torch.full((5, 1), 3.0), batch=other), expected)
    with pytest.raises(InputError, match=r"at: +input twice\n +expected: True"):
        loaded(other, scale=torch.ones(5, 1), twice=False)
    with pytest.raises(InputError, match=r"at: +input batch_b, axis 1\n +expected: 6\n +got: +7"):
        loaded({"a": torch.randn(5, 4), "b": torch.randn(5, 7)}, scale=torch.ones(5, 1), twice=True)
    with pytest.raises(TypeError):
        loaded(other)


def test_where_nobody_reads_what_torch_says_no_axis_but_the_batch_is_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("geta_nb.graph.sizes._conditions", lambda *_: ["Piecewise((1, True))"])
    for model, kind in ((Halves(), "graph"), (Pixels(), "native")):
        net, subnet = cut(model, torch.randn(2, 3, 8, 8), quantize=None)
        assert subnet.geta_info.kind == kind
        loaded = gt.load(gt.save(subnet, tmp_path / "net"))
        assert "takes x: a × 3 × 8 × 8" in repr(loaded)
        assert_same(net, loaded, torch.randn(5, 3, 8, 8))
        with pytest.raises(InputError, match=r"at: +input x, axis 2"):
            loaded(torch.randn(2, 3, 9, 9))


class TwoHeads(nn.Module):
    """Two heads by number in its code: half of the batch may stand where the other head stood."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(6, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x).view(-1, 2, 4)
        h = h / (h.square().sum(-1, keepdim=True) + 1).sqrt()
        return self.b(h.reshape(x.shape[0], -1))


def test_a_batch_that_stands_where_a_head_stood_is_no_native_subnet() -> None:
    torch.manual_seed(0)
    model, x = TwoHeads().double().eval(), torch.randn(2, 6, dtype=torch.float64)
    geta = gt.GETA(model, x, quantize=None)
    assert len(geta.groups) == 2
    geta.mask([0])
    subnet = geta.construct_subnet()
    assert subnet.geta_info.kind == "graph"
    for batch in (1, 2, 3, 4):
        more = torch.randn(batch, 6, dtype=torch.float64)
        torch.testing.assert_close(subnet(more), model(more), rtol=1e-9, atol=1e-12)


def test_what_input_quantizers_hide_is_looked_at_without_them() -> None:
    net, other = (nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2)).double().eval() for _ in range(2))
    geta = gt.GETA(net, torch.randn(8, 4, dtype=torch.float64), quantize=gt.QuantConfig(activations=True))
    geta.calibrate([torch.randn(8, 4, dtype=torch.float64)])
    x = torch.full((1, 4), 0.3, dtype=torch.float64)
    moved = x + 1e-9
    assert torch.equal(net(x), net(moved)), "both give the same codes"
    assert not torch.equal(unrounded(net, (x,), {})[0], unrounded(net, (moved,), {})[0])
    assert torch.equal(net(x), net(moved)) and torch.equal(unrounded(other, (x,), {})[0], other(x))
