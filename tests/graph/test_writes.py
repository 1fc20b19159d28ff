"""Writes into parts of a tensor are rewritten in place, as the model computes; what may be seen under another name is left to torch."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import geta_nb as gt
from geta_nb.graph import agree_in_float64, trace_model
from geta_nb.graph.lower import is_lowerable
from geta_nb.groups.propagation import understood


class Net(nn.Module):
    def __init__(self, body: Any) -> None:
        super().__init__()
        self.a, self.b, self.body = nn.Linear(6, 8), nn.Linear(8, 5), body
        self.register_buffer("count", torch.zeros(8))

    def forward(self, x: Tensor) -> Any:
        return self.body(self, x)


def into_zeros(net: Net, x: Tensor) -> Tensor:
    h, y = net.a(x), torch.zeros_like(net.a(x))
    y[:, :3] = h[:, :3]
    return net.b(y)


def one_index(net: Net, x: Tensor) -> Tensor:
    y = net.a(x)
    y[:, 2] = y[:, 0]
    return net.b(y)


def added(net: Net, x: Tensor) -> Tensor:
    y = net.a(x)
    y[:, 1:] += net.a(x)[:, :-1]
    return net.b(y)


def a_number(net: Net, x: Tensor) -> Tensor:
    y = net.a(x)
    y[:, :2] = 0
    y[:, 4:6].fill_(0.5)
    y[:, 7].zero_()
    return net.b(y)


def by_mask(net: Net, x: Tensor) -> Tensor:
    y = net.a(x)
    y[y > 0] = 0
    y.masked_fill_(y < -1, 2.0)
    return net.b(y)


def by_index(net: Net, x: Tensor) -> Tensor:
    y = net.a(x)
    y[:, torch.tensor([0, 2])] = net.a(x)[:, :2]
    return net.b(y)


def in_steps(net: Net, x: Tensor) -> Tensor:
    y, h = torch.empty_like(net.a(x)), net.a(x)
    y[:, ::2], y[:, 1::2] = h[:, :4].sin(), h[:, :4].cos()
    return net.b(y)


def deeper(net: Net, x: Tensor) -> Tensor:
    y = net.a(x)
    part = y[1:]
    part[:, 2:5][0].mul_(2)
    part.t()[3] += 1
    y.unsqueeze(1)[:, 0, 6] = 7
    return net.b(y) + part.sum()


def an_older_view(net: Net, x: Tensor) -> Tensor:
    y = net.a(x)
    old, copy = y[:, :4], y * 1
    y.mul_(2)
    y[:, 0] = 3
    return net.b(copy) + old.sum() + y.sum()


def what_a_write_gives(net: Net, x: Tensor) -> Tensor:
    y = net.a(x)
    z = y[:, :4].mul_(3)
    y[:, 1].add_(1)
    z[0] = 0
    return net.b(y) + z.mean()


def of_another_type(net: Net, x: Tensor) -> Tensor:
    y = torch.zeros(x.shape[0], 8, dtype=torch.float64)
    y[:, :8] = net.a(x)
    return net.b(y.float())


def repeated(net: Net, x: Tensor) -> Tensor:
    y = net.a(x)
    y[:, 2:4] = x[:, :1]
    y[...] = y * 2
    return net.b(y).view(-1)


def one_of_several(net: Net, x: Tensor) -> Tensor:
    y = net.a(x)
    best, index = y.topk(8, -1)
    best /= best.sum(-1, keepdim=True)
    y.scatter_add_(1, index, best)
    return net.b(y)


def squeezed(net: Net, x: Tensor) -> Tensor:
    y = net.a(x).unsqueeze(1) * 1
    y.squeeze(1).add_(x[:, :1])
    y.squeeze(0)[:, 0, 1:3] = 0
    return net.b(y[:, 0]) + y.sum()


def not_dropped(net: Net, x: Tensor) -> Tensor:
    return net.b(torch.nn.functional.dropout(net.a(x).flatten(1), 0.5, net.training, inplace=True))


def turned(net: Net, x: Tensor) -> Tensor:
    y = net.a(x)
    z = y.mT.reshape_as(y) + y.T.mT + y.sum(0).broadcast_to(y.shape)
    return net.b(z)


def under_no_grad(net: Net, x: Tensor) -> Tensor:
    with torch.no_grad():
        y = torch.zeros_like(x)
        y[:, :2] = x[:, :2]
    return net.b(net.a(x + y))


KNOWN = {
    "zeros": into_zeros, "one index": one_index, "added": added, "a number": a_number, "mask": by_mask, "index": by_index,
    "steps": in_steps, "deeper": deeper, "older view": an_older_view, "result": what_a_write_gives, "another type": of_another_type,
    "repeated": repeated, "no grad": under_no_grad, "several": one_of_several, "squeezed": squeezed,
    "dropout": not_dropped, "turned": turned,
}  # fmt: skip


@pytest.fixture
def no_second_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.export.ExportedProgram, "run_decompositions", lambda *_: pytest.fail("a second trace"))


@pytest.mark.usefixtures("no_second_trace")
@pytest.mark.parametrize("name", KNOWN)
def test_a_write_into_a_part_is_traced_once_and_as_it_computes(name: str):
    net, x = Net(KNOWN[name]).eval(), torch.randn(4, 6)
    found = trace_model(net, (x,), understood=understood)
    assert found.dynamic_batch
    for rows in (4, 7):
        x = torch.randn(rows, 6)
        with torch.no_grad():
            assert torch.equal(found.module(x), net(x))


@pytest.mark.parametrize("name", KNOWN)
def test_a_cut_network_with_such_a_write_computes_what_the_masked_one_does(name: str):
    torch.manual_seed(0)
    net, x = Net(KNOWN[name]).double() if name != "another type" else Net(KNOWN[name]), torch.randn(4, 6)
    x = x.double() if name != "another type" else x
    geta = gt.GETA(net, x, quantize=None)
    geta.mask(range(0, len(geta.groups), 2))
    assert agree_in_float64(geta.construct_subnet(), geta.model, (x,), {}) or name == "another type"


def of_the_input(net: Net, x: Tensor) -> Tensor:
    x[:, 0] = 1
    return net.b(net.a(x))


def under_a_reshape(net: Net, x: Tensor) -> Tensor:
    y = net.a(x)
    flat = y.reshape(-1)
    y[:, 0] = 0
    return net.b(y) + flat.sum()


def of_its_own_type(net: Net, x: Tensor) -> Tensor:
    y = net.a(x)
    y.type_as(x)[:, 0] = 0  # the same tensor, though nothing in its signature says so
    return net.b(y)


def a_turned_sum(net: Net, x: Tensor) -> Tensor:
    y = net.a(x)
    torch.einsum("ij->ji", y)[0] = 0
    return net.b(y)


def split_before(net: Net, x: Tensor) -> Tensor:
    y = net.a(x)
    flat = y.unflatten(1, (2, 4))
    y.mul_(2)
    return net.b(y) + flat[:, 0].sum()


def a_buffer(net: Net, x: Tensor) -> Tensor:
    net.count[0] = x.mean()
    return net.b(net.a(x) + net.count)


UNSURE = {
    "input": of_the_input, "reshape": under_a_reshape, "type": of_its_own_type, "split": split_before, "buffer": a_buffer,
}


@pytest.mark.parametrize("name", UNSURE)
def test_what_may_be_seen_under_another_name_is_left_to_torch(name: str, monkeypatch: pytest.MonkeyPatch):
    net, x, calls = Net(UNSURE[name]).eval(), torch.randn(4, 6), []
    whole = torch.export.ExportedProgram.run_decompositions
    monkeypatch.setattr(torch.export.ExportedProgram, "run_decompositions", lambda *args: (calls.append(1), whole(*args))[1])
    found = trace_model(net, (x.clone(),), understood=understood)
    assert calls
    with torch.no_grad():
        assert torch.equal(found.module(x.clone()), net(x.clone()))


def test_a_view_that_no_signature_shows_is_no_tensor_of_its_own():
    program = torch.export.export(Net(a_turned_sum).eval(), (torch.randn(4, 6),), strict=False)
    assert not is_lowerable(program.graph_module)


class Random(nn.Module):
    """A program of reads, views and writes, drawn from a seed."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.seed = seed

    def forward(self, x: Tensor) -> Tensor:
        draw = random.Random(self.seed)
        names = [x * 1, x.sin()]
        for _ in range(draw.randint(4, 12)):
            y = draw.choice(names)
            axis = draw.randrange(y.dim()) if y.dim() else 0
            act = draw.randrange(8)
            if act <= 2 and y.dim() > 1:
                start = draw.randrange(int(y.shape[axis]))
                cuts = (slice(None),) * axis
                views = (y[(*cuts, start)], y[(*cuts, slice(start, None))], y[(*cuts, slice(None, None, 2))], y.transpose(0, axis))
                names.append(draw.choice((*views, y.unsqueeze(axis), y.squeeze(axis))))
            elif act == 3:
                names.append(y.cos())
            elif act == 4:
                y.mul_(draw.choice((2, 0.5, -1)))
            elif act == 5:
                names.append(y.add_(1))
            elif act == 6:
                y.fill_(0.25) if draw.random() < 0.3 else y.copy_(y * 3 + 1)
            else:
                other = draw.choice(names)
                y.copy_(other.sum()) if other.dim() else y.add_(other)
        return torch.cat([name.reshape(-1) for name in names])


@pytest.mark.usefixtures("no_second_trace")
@pytest.mark.parametrize("seed", range(40))
def test_programs_drawn_at_random_compute_what_they_compute(seed: int):
    net, x = Random(seed), torch.randn(3, 4, 2, dtype=torch.float64)
    found = trace_model(net, (x,), understood=understood, sizes="fixed").module
    assert not any(node.target._schema.is_mutable for node in found.graph.nodes if isinstance(node.target, torch._ops.OpOverload))
    # a sum over a copy takes its summands in another order than one over a view
    torch.testing.assert_close(found(x), net(x), rtol=1e-9, atol=1e-9)
