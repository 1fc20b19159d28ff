"""What the exporter cannot see through is told by its reason: each has a hint of its own, and none that of another."""

from __future__ import annotations

import importlib
import sys
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pack_sequence, pad_packed_sequence
from transformers import DynamicCache, LlamaConfig, LlamaForCausalLM

import geta_nb as gt
from geta_nb.errors import TraceError
from geta_nb.graph import trace_model, untraceable


class Packs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer, self.rnn, self.head = nn.Linear(5, 6), nn.LSTM(6, 8, batch_first=True), nn.Linear(8, 2)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        packed = pack_padded_sequence(self.layer(x), lengths, batch_first=True, enforce_sorted=False)
        out, _ = pad_packed_sequence(self.rnn(packed)[0], batch_first=True)
        return self.head(out)


class TakesPacked(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.head = nn.GRU(6, 8), nn.Linear(8, 2)

    def forward(self, packed: PackedSequence) -> Tensor:
        return self.head(self.rnn(packed)[1][0])


class Body(nn.Module):
    """A convolution and its norm, a linear layer, a buffer, and a forward given as a function."""

    def __init__(self, body: Any = None) -> None:
        super().__init__()
        self.a, self.b, self.norm = nn.Linear(4, 6), nn.Linear(6, 2), nn.BatchNorm1d(6)
        self.register_buffer("mean", torch.zeros(6))
        self.loose, self.body = torch.zeros(6), body

    def forward(self, x: Tensor) -> Tensor:
        return self.body(self, x)


def branch(net: Body, x: Tensor) -> Tensor:
    y = net.a(x)
    if y.sum() > 0:
        y = y * 2
    return net.b(y)


def loop(net: Body, x: Tensor) -> Tensor:
    y = net.a(x)
    while y.abs().max() > 0.01:
        y = y / 2
    return net.b(y)


def choice(net: Body, x: Tensor) -> Tensor:
    y = net.a(x)
    y = y * 2 if y.sum() > 0 else y
    return net.b(y)


def number(net: Body, x: Tensor) -> Tensor:
    return net.b(net.a(x) * float(x.mean()))


def size(net: Body, x: Tensor) -> Tensor:
    return net.b(net.a(x)) * net.a(x)[:, : int(x.argmax()) + 1].sum()


def listed(net: Body, x: Tensor) -> Tensor:
    y = net.a(x)
    for index in torch.nonzero(y.sum(1) > -100).flatten().tolist():
        y = y + y[index]
    return net.b(y)


def data_of_a_buffer(net: Body, x: Tensor) -> Tensor:
    keep = net.norm.running_mean.clone()
    y = net.norm(net.a(x))
    net.norm.running_mean.data.copy_(keep.data)
    return net.b(y)


def data_of_a_result(net: Body, x: Tensor) -> Tensor:
    return net.b(net.a(x).data * 2)


def unregistered(net: Body, x: Tensor) -> Tensor:
    y = net.a(x)
    net.loose.mul_(0.5).add_(y.mean(0))
    return net.b(y + net.loose)


def of_numpy(net: Body, x: Tensor) -> Tensor:
    return net.b(net.a(x) * float(x.numpy().sum()))


def gradient(net: Body, x: Tensor) -> Tensor:
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        (slope,) = torch.autograd.grad(net.a(x).square().sum(), x)
    return net.b(net.a(slope))


def llama(**options: Any) -> nn.Module:
    config = LlamaConfig(
        hidden_size=16, intermediate_size=24, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=2, vocab_size=20,
        max_position_embeddings=16, **options,
    )  # fmt: skip
    return LlamaForCausalLM(config).eval()


PACKED, CACHE, FORK, NUMBER, DATA, BUFFER, NUMPY, GRADIENT = (
    "without pack_padded_sequence", "no past_key_values", "torch.where", "keep it a tensor", "tensor.detach()", "register_buffer",
    "the torch function in place of numpy's", "move torch.autograd.grad out",
)  # fmt: skip
HINTS = (PACKED, CACHE, FORK, NUMBER, DATA, BUFFER, NUMPY, GRADIENT)
ROWS, IDS = (torch.randn(3, 4),), (torch.randint(0, 20, (2, 5)),)
CASES: dict[str, tuple[Any, tuple[Any, ...], dict[str, Any], str]] = {
    "packed inside": (Packs, (torch.randn(2, 5, 5), torch.tensor([5, 3])), {}, PACKED),
    "packed as an input": (TakesPacked, (pack_sequence([torch.randn(4, 6), torch.randn(2, 6)]),), {}, PACKED),
    "a cache as an input": (lambda: llama(use_cache=False), IDS, {"past_key_values": DynamicCache()}, CACHE),
    **{name: (lambda body=body: Body(body), ROWS, {}, hint) for name, body, hint in (
        ("if", branch, FORK), ("while", loop, FORK), ("if else", choice, FORK), ("a number", number, NUMBER), ("a size", size, NUMBER),
        ("a list", listed, NUMBER), ("data of a buffer", data_of_a_buffer, DATA), ("data of a result", data_of_a_result, DATA),
        ("a tensor that is no buffer", unregistered, BUFFER), ("numpy", of_numpy, NUMPY), ("a gradient", gradient, GRADIENT),
    )},
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_each_reason_has_its_own_hint_and_torch_prints_nothing(name, capfd, caplog):
    build, args, kwargs, hint = CASES[name]
    model = build().eval()
    with pytest.raises(TraceError) as raised:
        gt.GETA(model, args, example_kwargs=kwargs, quantize=None)
    assert [known for known in HINTS if known in raised.value.hint] == [hint]
    assert raised.value.what.startswith("GETA: torch.export cannot see through the model.")
    assert str(raised.value.got).partition(":")[0].isidentifier(), "the type of torch's own error, and its words"
    assert capfd.readouterr() == ("", "") and not caplog.records


@pytest.mark.parametrize("body", [branch, loop, choice, number, size, listed, of_numpy, gradient])
def test_the_line_of_the_forward_is_named(body):
    first = body.__code__.co_firstlineno
    with pytest.raises(TraceError) as raised:
        trace_model(Body(body).eval(), ROWS)
    file, _, rest = str(raised.value.at).partition(":")
    assert file == "test_untraceable.py" and rest.endswith(f" in {body.__name__}")
    assert first < int(rest.split()[0]) <= max(line for *_, line in body.__code__.co_lines() if line)


class OwnData(Body):
    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.a(x) * self.mean.data)


def test_the_forward_that_says_data_is_named_though_torch_names_no_line():
    line = OwnData.forward.__code__.co_firstlineno + 1
    with pytest.raises(TraceError, match=rf"at: +test_untraceable.py:{line} in forward"):
        trace_model(OwnData().eval(), ROWS)


def test_detach_and_copy_into_a_buffer_are_what_the_hint_says():
    def detached(net: Body, x: Tensor) -> Tensor:
        net.mean.copy_(net.a(x).mean(0))
        return net.b(net.a(x) - net.mean.detach())

    net = Body(detached).eval()
    trace = trace_model(net, ROWS)
    with torch.no_grad():
        y = net.a(*ROWS)
        assert torch.equal(trace.module(*ROWS), net.b(y - y.mean(0)))


def test_an_output_that_shows_no_tensors_is_named():
    def hidden(net: Body, x: Tensor) -> Any:
        return {net.b(net.a(x))}

    with pytest.raises(TraceError, match=r"(?s)whose attributes hold the tensors.*try: +return a tuple.* in place of set") as raised:
        gt.GETA(Body(hidden), ROWS, quantize=None)
    assert not [known for known in HINTS if known in raised.value.hint]


def test_a_reason_that_nobody_knows_gets_torch_s_words_and_no_guess():
    class Odd(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            if torch.compiler.is_exporting():
                raise KeyError("a dictionary of the model's own")
            return x.relu()

    with pytest.raises(TraceError, match=r"(?s)a forward that torch\.export can trace.*KeyError.*move what stands there out") as raised:
        trace_model(Odd(), ROWS)
    assert not [known for known in HINTS if known in raised.value.hint]


def test_what_the_forward_prints_itself_is_printed(capsys):
    def chatty(net: Body, x: Tensor) -> Tensor:
        sys.stdout.write("to the user\n")
        sys.stderr.write("to the log\n")
        return branch(net, x)

    with pytest.raises(TraceError):
        trace_model(Body(chatty).eval(), ROWS)
    out, err = capsys.readouterr()
    assert set(out.splitlines()) == {"to the user"} and set(err.splitlines()) == {"to the log"}


@pytest.mark.parametrize(("body", "runs"), [(branch, 1), (number, 1), (listed, 1), (data_of_a_buffer, 3), (gradient, 3)])
def test_what_the_first_words_tell_is_not_asked_again(body, runs, monkeypatch):
    """One run of the exporter; where its words do not tell, one without free sizes and one in strict mode."""
    ran, export = [], torch.export.export
    monkeypatch.setattr(torch.export, "export", lambda *args, **kwargs: (ran.append(kwargs["strict"]), export(*args, **kwargs))[1])
    with pytest.raises(TraceError):
        trace_model(Body(body).eval(), ROWS)
    assert len(ran) == runs and sum(ran) == (runs == 3)


def test_an_explanation_takes_no_longer_than_it_may(monkeypatch):
    """Instructions that are read are counted: none more where time is up, all of them where there is time."""
    reader = importlib.import_module("torch._dynamo.symbolic_convert").InstructionTranslatorBase
    original, read = reader.step, []
    monkeypatch.setattr(reader, "step", counting := lambda self: (read.append(1), original(self))[1])
    deep = nn.Sequential(*(nn.Linear(4, 4) for _ in range(30)), Body(data_of_a_result)).eval()
    assert untraceable._strict_error(deep, ROWS, {}, -1.0) is None
    assert len(read) == 0 and reader.step is counting
    untraceable._strict_error(deep, ROWS, {}, 1e6)
    assert len(read) > 30 and reader.step is counting
    with pytest.raises(TraceError, match=r"tensor\.detach\(\)"):
        trace_model(Body(data_of_a_result).eval(), ROWS)
