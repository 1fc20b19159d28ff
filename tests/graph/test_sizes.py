"""Which sizes of inputs a graph is for: read off torch, written as data, checked; text from a file computes sums alone."""

from __future__ import annotations

import json

import pytest
import torch
from torch import Tensor, nn

from geta_nb.errors import ArtifactError, InputError
from geta_nb.graph.expressions import names_in, value_of
from geta_nb.graph.sizes import InputSize, InputSizes, decode_sizes, encode_sizes, sizes_of
from geta_nb.graph.trace import export_program, trace_model

SIZES = InputSizes(
    (InputSize("x", ("n0", 3, "n1")), InputSize("mask", ("n0", "2*n1")), InputSize("flag", None, True)), ("(n1 % 4) == 0", "n1 <= 16")
)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("(n0 // 4) * 4 == n0", True), ("n0 % 3", 2), ("-1 + 2*n1", 5), ("min(24, n0) == n0", True), ("max(1, n1 - 5)", 1),
        ("n0 % (n1 - 3) == 0", False), ("math.trunc(torch.sym_float(n0*2) ** 0.5) == 4", True), ("math.ceil(n1 / 2)", 2), ("n0 ** 2", 64),
        ("n0 == 1 or n1 == 3", True), ("n0 == 8 and not n1 == 3", False), ("1 < 3*n0*n1 < 100", True),
    ],
)  # fmt: skip
def test_arithmetic_of_sizes(text: str, value: object) -> None:
    assert value_of(text, {"n0": 8, "n1": 3}) == value


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os')", "n0.real", "x0", "n0 ** 9", "n0 ** n1", "2 ** -n0", "math.factorial(n0)",
        "math.inf", "torch.load(n0)", "min.__class__(n0)",
        "(lambda: 1)()", "[n0]", "n0 if n1 else 2", "min(n0, key=n1)", "max()", "n0 <<", "",
        "'a' * n0", "print(n0)", f"{2**70}", "(" * 5000 + ")" * 5000, "n0 + " * 20000 + "1", "min",
    ],
)  # fmt: skip
def test_what_is_no_arithmetic_is_refused_before_it_is_computed(text: str) -> None:
    for use in (names_in, lambda given: value_of(given, {"n0": 1, "n1": 1})):
        with pytest.raises(ArtifactError, match="malformed"):
            use(text)


def test_sizes_say_themselves_and_go_through_json() -> None:
    assert SIZES.words == "x: a × 3 × b, mask: a × 2*b, flag = True"
    assert SIZES.bound == (("x", 1, 3),)
    assert decode_sizes(json.loads(json.dumps(encode_sizes(SIZES)))) == SIZES
    assert decode_sizes(encode_sizes(None)) is None


@pytest.mark.parametrize(
    "data",
    [
        {"inputs": [["x", ["n0", "n1 * n7"], None, "int64"]], "conditions": [], "example": {}},
        {"inputs": [["x", ["n0"], None, "int64"]], "conditions": ["n1 == 2"], "example": {}},
        {"inputs": [["x", ["n0"], None, "int64"]], "conditions": ["open('f')"], "example": {}},
        {"inputs": [[3, ["n0"], None, "int64"]], "conditions": [], "example": {}},
        {"inputs": [["x", [1.5], None, "int64"]], "conditions": [], "example": {}},
        {"inputs": [["x", [True], None, "int64"]], "conditions": [], "example": {}},
        {"inputs": [["x", "n0", None, "int64"]], "conditions": [], "example": {}},
        {"inputs": [["x", None, [1], ""]], "conditions": [], "example": {}},
        {"inputs": [["x", ["n0"], None, 3]], "conditions": [], "example": {}},
        {"inputs": [["x", ["n0"], None, "int64"]], "conditions": [], "example": {"n0": 2**40}},
        {"inputs": [["x", ["n0"], None, "int64"]], "conditions": [], "example": {"n3": 2}},
    ],
)  # fmt: skip
def test_malformed_sizes_are_refused(data: object) -> None:
    with pytest.raises(ArtifactError):
        decode_sizes(data)


def leaves(batch: int = 2, channels: int = 3, length: int = 8, mask: int = 16, flag: object = True) -> list[object]:
    return [torch.zeros(batch, channels, length), torch.zeros(batch, mask), flag]


def test_inputs_that_fit_are_read() -> None:
    assert SIZES.read(leaves(5, length=4, mask=8)) == {"n0": 5, "n1": 4}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (leaves(channels=4), r"at: +input x, axis 1\n +expected: 3\n +got: +4"),
        (leaves(mask=15), r"at: +input mask, axis 1\n +expected: 16, which is 2\*x.shape\[2\]\n +got: +15"),
        (leaves(length=6, mask=12), r"at: +input x, axis 2\n +expected: \(x.shape\[2\] % 4\) == 0\n +got: +x.shape\[2\] = 6"),
        (leaves(length=32, mask=64), r"expected: x.shape\[2\] <= 16"),
        (leaves(flag=False), r"at: +input flag\n +expected: True, the value of the example\n +got: +False"),
        (leaves(flag=1), r"at: +input flag"),
        ([torch.zeros(2, 3), *leaves()[1:]], r"at: +input x\n +expected: 3 axes\n +got: +shape \(2, 3\)"),
        ([None, *leaves()[1:]], r"at: +input x\n +expected: a tensor\n +got: +NoneType"),
    ],
)
def test_another_size_names_input_axis_expected_and_got(given: list[object], said: str) -> None:
    with pytest.raises(InputError, match=said):
        SIZES.read(given)


def test_inputs_of_other_sizes_repeat_or_begin_the_example() -> None:
    x, mask, flag = SIZES.resized((torch.arange(48.0).view(2, 3, 8), torch.zeros(2, 16), True), {"n0": 3, "n1": 12})
    assert x.shape == (3, 3, 12) and mask.shape == (3, 24) and flag is True
    assert torch.equal(x[2], x[0]) and torch.equal(x[..., 8:], x[..., :4])


class Patches(nn.Module):
    """Cuts an image into patches of 4 x 4, has 64 positions, and is told whether to double."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.position = nn.Conv2d(3, 8, 4, 4), nn.Parameter(torch.zeros(1, 64, 8))

    def forward(self, x: Tensor, twice: bool = False) -> Tensor:
        y = self.stem(x).flatten(2).transpose(1, 2)
        y = y + self.position[:, : y.shape[1]]
        return y * 2 if twice else y


def test_torchs_own_findings_become_axes_and_conditions() -> None:
    program, dynamic = export_program(Patches(), (torch.randn(2, 3, 8, 8),), {"twice": True}, sizes="any")
    sizes = sizes_of(program)
    assert dynamic and sizes is not None
    assert [item.axes for item in sizes.inputs] == [("n0", 3, "n1", "n2"), None] and sizes.inputs[1].value is True
    assert sizes.read([torch.zeros(5, 3, 32, 16), True]) == {"n0": 5, "n1": 32, "n2": 16}
    with pytest.raises(InputError, match=r"expected: .*64"):
        sizes.read([torch.zeros(2, 3, 64, 64), True])  # 256 patches, 64 positions


@pytest.mark.parametrize(("sizes", "axes"), [("any", ("n0", 3, "n1", "n2")), ("batch", ("n0", 3, 8, 8)), ("fixed", (2, 3, 8, 8))])
def test_a_trace_knows_what_it_is_for(sizes: str, axes: tuple[object, ...]) -> None:
    x = torch.randn(2, 3, 8, 8)
    trace = trace_model(nn.Conv2d(3, 4, 3), (x,), sizes=sizes)
    assert trace.sizes is not None and trace.sizes.inputs[0].axes == axes
    assert trace.dynamic_batch == (sizes != "fixed")
    assert not hasattr(x, "_dynamo_dynamic_indices")  # the user's own tensor carries no mark of it
