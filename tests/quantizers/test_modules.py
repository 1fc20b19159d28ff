"""The quantizer's formula, gradients, codes and bits against scalar references, and what its modules promise."""

import copy
import io
import math

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn

from geta_nb.errors import BitWidthError, CalibrationError, NonFiniteError
from geta_nb.quantizers import fake_quant
from geta_nb.quantizers import gradients as quant_gradients
from geta_nb.quantizers.fake_quant import bit_width, codes, fake_quantize, step_size
from geta_nb.quantizers.modules import ActivationQuantizer, WeightQuantizer

calm = settings(deadline=None)  # the first call of a torch operator is slow


def sign(x):
    return (x > 0) - (x < 0)


def reference(x, d, q, t):
    """x^Q and its derivatives to x, d, q_m, t for one number, written out from FACTS."""
    u = min(abs(x), q) ** t
    n, inside = round(u / d), abs(x) <= q
    log = 0.0 if x == 0 else math.log(min(abs(x), q))
    to_q = 0.0 if inside else sign(x) * t * q ** (t - 1)
    return sign(x) * d * n, (1.0 if inside else 0.0, sign(x) * (n - u / d), to_q, sign(x) * u * log)


def double(*values):
    return [torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in values]


@st.composite
def cases(draw):
    """Numbers, one step, clip and exponent, none of them within 1e-6 steps of a rounding jump (there the last bit of pow decides)."""
    q, t = draw(st.floats(0.05, 8)), draw(st.sampled_from([1.0, 0.3, 0.8, 1.7, 3.0]))
    d = q**t / (2 ** (draw(st.floats(2, 12)) - 1) - 1)
    xs = draw(st.lists(st.one_of(st.just(0.0), st.floats(-2, 2).map(lambda r: r * q)), min_size=1, max_size=8))
    for x in xs:
        u = min(abs(x), q) ** t / d
        assume(abs(u - math.floor(u) - 0.5) > 1e-6)
    return xs, d, q, t


@calm
@given(cases())
def test_forward_and_all_four_gradients_are_the_written_out_formulas(case):
    xs, *numbers = case
    x, d, q, t = double(xs, *numbers)
    weights = torch.arange(1.0, len(xs) + 1, dtype=torch.float64)
    y = fake_quantize(x, d, q, t)
    (y * weights).sum().backward()
    rows = [reference(v, *numbers) for v in xs]
    # float64: pow and log of torch and of Python's libm differ by a few ulp, 1e-16 each, times at most 2**12 levels
    torch.testing.assert_close(y.detach(), torch.tensor([r[0] for r in rows], dtype=torch.float64), rtol=1e-12, atol=1e-12)
    assert x.grad.tolist() == [r[1][0] * w for r, w in zip(rows, weights.tolist(), strict=True)]
    for k, parameter in enumerate((d, q, t), start=1):
        expected = sum(r[1][k] * w for r, w in zip(rows, weights.tolist(), strict=True))
        assert float(parameter.grad) == pytest.approx(expected, rel=1e-11, abs=1e-11)


@calm
@given(cases())
def test_gradients_of_step_clip_and_exponent_match_finite_differences_with_rounding_held_fixed(case):
    xs, *numbers = case
    offsets = [round(min(abs(x), numbers[1]) ** numbers[2] / numbers[0]) - min(abs(x), numbers[1]) ** numbers[2] / numbers[0] for x in xs]
    assume(all(abs(abs(x) - numbers[1]) > 1e-3 for x in xs))  # the clip is a kink

    def held(d, q, t):  # straight-through: round(z) = z + constant, so x^Q = sgn(x) (u + d constant)
        return sum(sign(x) * (min(abs(x), q) ** t + d * c) for x, c in zip(xs, offsets, strict=True))

    x, *parameters = double(xs, *numbers)
    fake_quantize(x, *parameters).sum().backward()
    for k, parameter in enumerate(parameters):
        h = 1e-6 * numbers[k]
        up, down = ([n + s * h * (i == k) for i, n in enumerate(numbers)] for s in (1, -1))
        slope = (held(*up) - held(*down)) / (2 * h)
        # central differences: truncation 1e-12 of the third derivative, cancellation 1e-16 |f| / h <= 1e-10 * 8**3 / 0.05 * 8 terms
        assert float(parameter.grad) == pytest.approx(slope, rel=1e-5, abs=1e-5)


@pytest.mark.parametrize("t", [0.1, 1.0, 7.5])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_zeros_give_zeros_and_finite_gradients_at_any_exponent(t, dtype):
    x = torch.tensor([0.0, -0.0, 0.0], dtype=dtype, requires_grad=True)
    parameters = [torch.tensor(v, requires_grad=True) for v in (0.01, 0.5, t)]
    y = fake_quantize(x, *parameters)
    y.sum().backward()
    assert y.tolist() == [0, 0, 0] and x.grad.tolist() == [1, 1, 1]
    assert [float(p.grad) for p in parameters] == [0, 0, 0]
    assert y.dtype == x.grad.dtype == dtype and parameters[0].grad.dtype == torch.float32


def test_defect_11_the_straight_through_range_is_the_clip_and_not_two():
    x, d, q, t = double([-4.9, -2.1, 1.0, 3.0, 5.1], 0.1, 5.0, 1.0)
    fake_quantize(x, d, q, t).sum().backward()
    assert x.grad.tolist() == [1, 1, 1, 1, 0]


@calm
@given(cases(), st.sampled_from([torch.float32, torch.bfloat16]))
def test_the_uniform_path_and_the_exported_operators_give_the_same_bits(case, dtype):
    xs, d, q, t = case
    gradients, outputs = [], []
    for uniform in (False, True):
        x = torch.tensor(xs, dtype=dtype, requires_grad=True)
        parameters = [torch.tensor(v, requires_grad=True) for v in (d, q, 1.0)]
        outputs.append(fake_quantize(x, *parameters, uniform=uniform))
        gradients.append(torch.autograd.grad(outputs[-1].sum(), [x, *parameters[:2]]))
    assert torch.equal(*outputs)
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))
    for exponent in (1.0, t):
        numbers = [torch.tensor(v) for v in (d, q, exponent)]
        assert torch.equal(fake_quantize(x, *numbers), fake_quant.fake_quantize_aten(x, *numbers))


@calm
@given(cases(), st.sampled_from([torch.float64, torch.float32, torch.bfloat16, torch.float16]))
def test_step_times_codes_is_the_fake_quantized_tensor_exactly(case, dtype):
    xs, *numbers = case
    x, parameters = torch.tensor(xs, dtype=dtype), [torch.tensor(v) for v in numbers]
    integers = codes(x, *parameters)
    assert integers.dtype == torch.int64
    step = parameters[0].to(fake_quant.compute_dtype(x))
    assert torch.equal((step * integers).to(dtype), fake_quantize(x, *parameters))
    # |code| is at most round(q_m**t / d), and q_m**t / d = 2**(b-1) - 1
    assert int(integers.abs().max()) <= round(numbers[1] ** numbers[2] / numbers[0]) + (dtype is not torch.float64)


def test_sixteen_bit_codes_survive_in_bfloat16_weights():
    weight = torch.tensor([1.0, 0.5, 255 / 256], dtype=torch.bfloat16)
    quantizer = WeightQuantizer.for_weight(weight)
    assert quantizer.step_size.dtype == torch.float32
    assert quantizer.codes(weight).tolist() == [32767, 16384, 32639]  # a bfloat16 quotient would have 8 of the 16 bits


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@calm
@given(q=st.floats(1e-4, 1e4), t=st.floats(0.25, 2))
def test_bit_width_inverts_step_size(dtype, q, t):
    bits = torch.arange(2, 17, dtype=dtype)
    clip, exponent = torch.tensor(q, dtype=dtype), torch.tensor(t, dtype=dtype)
    again = bit_width(step_size(bits, clip, exponent), clip, exponent)
    # q**t / d carries two roundings, so eps; log2 turns that into eps / ln 2, and rounds a number up to 16 itself: 16 eps
    assert float((again - bits).abs().max()) <= 24 * torch.finfo(dtype).eps
    for b in (2, 7, 16):
        assert torch.allclose(step_size(b, clip, exponent), step_size(bits, clip, exponent)[b - 2], rtol=4 * torch.finfo(dtype).eps, atol=0)


@pytest.mark.parametrize("bits", [1, 1.99, math.nan, torch.tensor(1.0), torch.tensor([4.0, 0.0])])
def test_a_step_for_fewer_than_two_bits_is_refused(bits):
    with pytest.raises(BitWidthError, match="sign bit and at least one level bit"):
        step_size(bits, torch.tensor(1.0), torch.tensor(1.0))


def test_nothing_waits_for_the_device():
    # a meta tensor has no values: any .item(), bool() or boolean mask raises
    weight = torch.randn(4, 5, device="meta", requires_grad=True)
    for learn in (True, False):
        quantizer = WeightQuantizer.for_weight(weight, learn_exponent=learn)
        quantizer(weight).sum().backward()
        assert quantizer.bit_width().is_meta and quantizer.codes(weight).shape == (4, 5)
    fake_quantize(weight, *[torch.ones((), device="meta")] * 3, uniform=True).sum().backward()


def test_backward_computes_no_gradient_that_nobody_needs(monkeypatch):
    x, d, q, t = double([0.3, 2.0], 0.1, 1.0, 1.3)
    encoded = []
    for kept in (x, d, q, t):
        y = fake_quantize(*(p if p is kept else p.detach() for p in (x, d, q, t))).sum()
        encoded.clear()
        monkeypatch.setattr(quant_gradients, "encode", lambda *a: encoded.append(a) or torch.zeros(2, dtype=torch.float64))
        (gradient,) = torch.autograd.grad(y, [kept])
        monkeypatch.undo()
        assert len(encoded) == (kept is not x)  # the straight-through gradient needs no codes
        assert gradient.shape == kept.shape


def test_functional_transforms_see_the_gradients():
    x, parameters = torch.tensor([[0.3, -2.0], [0.7, 0.0]]), [torch.tensor(v) for v in (0.1, 1.0, 1.3)]

    def loss(row, d):
        return fake_quantize(row, d, *parameters[1:]).sum()

    rows = torch.func.vmap(torch.func.grad(loss, argnums=1), in_dims=(0, None))(x, parameters[0])
    assert torch.allclose(rows.sum(), torch.func.grad(loss, argnums=1)(x, parameters[0]), rtol=1e-5)


@pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning")  # torch.export copies its own deprecated class
def test_an_export_shows_plain_operators():
    model = nn.Linear(3, 2)
    nn.utils.parametrize.register_parametrization(model, "weight", WeightQuantizer.for_weight(model.weight), unsafe=True)
    x = torch.randn(4, 3)
    program = torch.export.export(model, (x,), strict=False).run_decompositions({})
    names = [str(node.target).split(".")[1] for node in program.graph.nodes if node.op == "call_function"]
    assert sorted(names) == ["abs", "div", "linear", "minimum", "mul", "mul", "pow", "round", "sign"]
    assert torch.equal(program.module(check_guards=False)(x), model(x))


def test_the_first_range_is_the_largest_weight_at_sixteen_bits():
    quantizer = WeightQuantizer.for_weight(torch.tensor([[0.5, -3.0], [0.0, 1.0]]))
    assert quantizer.clip_max.item() == 3 and quantizer.exponent.item() == 1
    assert float(quantizer.bit_width()) == pytest.approx(16, abs=1e-5)
    assert float(WeightQuantizer.for_weight(torch.ones(2, 2), initial_bits=6).bit_width()) == pytest.approx(6, abs=1e-5)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16])
def test_defect_12_an_all_zero_weight_gives_zeros_and_can_train(dtype):
    weight = nn.Parameter(torch.zeros(3, 4, dtype=dtype))
    quantizer = WeightQuantizer.for_weight(weight)
    assert quantizer.clip_max.item() == 0.5  # 1 / sqrt(fan_in)
    y = quantizer(weight)
    y.sum().backward()
    assert torch.equal(y, torch.zeros_like(weight)) and torch.equal(weight.grad, torch.ones_like(weight))
    assert all(bool(p.grad.isfinite()) for p in quantizer.parameters())


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_weight_that_is_not_finite_is_refused_by_name(value):
    with pytest.raises(NonFiniteError, match=r"body\.fc"):
        WeightQuantizer.for_weight(torch.tensor([[1.0, value]]), layer="body.fc")


def test_the_power_is_spared_exactly_while_the_exponent_is_a_fixed_one(monkeypatch):
    seen = []
    encode = fake_quant.encode
    monkeypatch.setattr(fake_quant, "encode", lambda *a: seen.append(a[4]) or encode(*a))
    x = torch.tensor([0.3, -0.8])
    quantizer = WeightQuantizer.for_weight(torch.ones(2, 2), learn_exponent=False)
    copied, learning = copy.deepcopy(quantizer), WeightQuantizer.for_weight(torch.ones(2, 2))
    bent = WeightQuantizer.for_weight(torch.ones(2, 2), learn_exponent=False)
    bent.load_state_dict({"step_size": torch.tensor(1e-4), "clip_max": torch.tensor(1.0), "exponent": torch.tensor(1.5)})
    for q in (quantizer, copied, learning, bent, copy.deepcopy(bent)):
        y = q(x)
        assert torch.equal(y, fake_quantize(x, q.step_size, q.clip_max, q.exponent))
    assert seen[::2] == [True, True, False, False, False]
    with torch.no_grad():
        quantizer.exponent.fill_(0.5)
    assert torch.equal(quantizer(x), fake_quantize(x, quantizer.step_size, quantizer.clip_max, torch.tensor(0.5)))


def test_casting_a_model_to_half_leaves_the_quantizer_its_bits():
    layer = WeightQuantizer.for_weight(torch.rand(2, 2))
    before = {name: p.detach().clone() for name, p in layer.named_parameters()}
    layer(torch.rand(2, 2)).sum().backward()
    layer.bfloat16()
    assert all(torch.equal(p, before[name]) and p.dtype == p.grad.dtype == torch.float32 for name, p in layer.named_parameters())
    assert layer.double().step_size.dtype == torch.float64


def test_an_uncalibrated_quantizer_names_its_layer_and_has_its_initial_bits():
    quantizer = ActivationQuantizer(torch.ones(1), initial_bits=12, layer="encoder.fc1")
    with pytest.raises(CalibrationError, match=r"encoder\.fc1"):
        quantizer(torch.ones(2))
    assert float(quantizer.bit_width()) == 12
    quantizer.set_range(2.0)
    assert float(quantizer.bit_width()) == pytest.approx(12, abs=1e-5)
    assert quantizer(torch.tensor(-9.0)).item() == pytest.approx(-2)  # signed, symmetric


@pytest.mark.parametrize("clip", [0.0, math.nan, math.inf, -1.0])
def test_whether_it_is_calibrated_follows_the_loaded_state_and_the_copy(clip):
    fresh = ActivationQuantizer(torch.ones(1), layer="fc")
    fresh.set_range(1.5)
    state = copy.deepcopy(fresh.state_dict())
    other = ActivationQuantizer(torch.ones(1), layer="fc")
    other.load_state_dict(state)
    assert other.calibrated and copy.deepcopy(other).calibrated
    stream = io.BytesIO()
    torch.save(other, stream)
    stream.seek(0)
    x = torch.randn(5)
    assert torch.equal(torch.load(stream, weights_only=False)(x), fresh(x))
    other.load_state_dict({**state, "clip_max": torch.tensor(clip)})
    for q in (other, copy.deepcopy(other)):
        with pytest.raises(CalibrationError):
            q(x)
