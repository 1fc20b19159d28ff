"""A subnet's ONNX file computes what the subnet computes, in both runtimes, and holds integers of the narrowest type."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, numpy_helper
from torch import Tensor, nn

import geta_nb as gt
from geta_nb.bench import digits
from geta_nb.latency.runtimes import open_openvino
from geta_nb.latency.signal_stack import kept_signal_stack
from geta_nb.onnx import processor
from tests.extent import WHOLE
from tests.files.nets import conv_net, image
from tests.onnx.checks import (
    CLOSE,
    OPENERS,
    both_close,
    compressed,
    errors,
    feed_of,
    half_cut,
    kinds,
    reference,
    relative_error,
    worst,
    worst_of_other_sizes,
)
from tests.zoo.catalogue import ZOO


@pytest.fixture(autouse=True, scope="module")
def _seeded() -> None:
    torch.manual_seed(0)


def test_a_convolutional_net_computes_the_same_at_any_batch_size(tmp_path):
    subnet = compressed(conv_net(), image(), widths=(4, 8, 3))
    path = gt.export_onnx(subnet, tmp_path / "net.onnx", image())
    assert path == tmp_path / "net.onnx" and list(tmp_path.iterdir()) == [path]
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    assert [(item.domain, item.version) for item in model.opset_import] == [("", 21)]
    assert {item.key: item.value for item in model.metadata_props}["dynamic_batch"] == "true"
    for batch in (1, 2, 7):
        both_close(subnet, path, image(batch))


def test_the_subnet_is_as_it_was(tmp_path):
    subnet = compressed(conv_net(), image(), inputs=8)
    before, code = {key: value.clone() for key, value in subnet.state_dict().items()}, subnet.geta_info.graph.code
    gt.export_onnx(subnet, tmp_path / "net", image())
    assert subnet.geta_info.graph.code == code
    for key, value in subnet.state_dict().items():
        assert torch.equal(value, before[key])


@pytest.mark.parametrize(
    ("bits", "kind", "reach"),
    [(2, "INT4", 1.0), (2, "INT4", 0.6), (3, "INT4", 0.6), (4, "INT4", 1.0), (4, "INT4", 0.6), (5, "INT8", 0.6), (8, "INT8", 1.0),
     (8, "INT8", 0.6), (9, "INT16", 0.6), (16, "INT16", 1.0), (16, "INT16", 0.6)],
)  # fmt: skip
def test_weights_are_codes_of_the_narrowest_type_that_both_runtimes_read(bits, kind, reach, tmp_path):
    model = nn.Sequential(nn.Linear(64, 96), nn.ReLU(), nn.Linear(96, 10))
    subnet = compressed(model, torch.randn(2, 64), widths=(bits,), reach=reach)
    path = gt.export_onnx(subnet, tmp_path / "net", torch.randn(2, 64))
    codes = [item for item in onnx.load(path).graph.initializer if np.prod(item.dims) >= 960]
    assert [TensorProto.DataType.Name(item.data_type) for item in codes] == [kind, kind]
    step = subnet.geta_info.formats["0.weight"].step_size
    expected = np.round(subnet.get_parameter("0.weight").detach().numpy().T / step)
    np.testing.assert_array_equal(numpy_helper.to_array(codes[0]).astype(np.int64), expected)
    assert expected.min() == (-(2 ** (bits - 1)) if reach < 1 else 1 - 2 ** (bits - 1)) or (bits, reach) == (16, 1.0)
    both_close(subnet, path, torch.randn(5, 64))


def test_below_eight_bits_the_file_shrinks(tmp_path):
    sizes = {}
    for bits in (4, 8, 16):
        subnet = compressed(nn.Sequential(nn.Linear(300, 400, bias=False)), torch.randn(2, 300), widths=(bits,))
        sizes[bits] = gt.export_onnx(subnet, tmp_path / "net", torch.randn(2, 300)).stat().st_size
    for bits, size in sizes.items():
        assert 0 < size - 120_000 * bits / 8 < 2000, "codes, and a graph of a few nodes"


CODES = ("signed", "signed, of positive numbers", "unsigned", "unsigned, of any numbers")
OF_INPUTS = [(b, c) for b in range(2, 17) for c in CODES if WHOLE or b in (2, 4, 8, 9, 16) or c == CODES[b % 4]]  # else one of them


@pytest.mark.parametrize(("bits", "codes"), OF_INPUTS)
def test_inputs_of_every_width_are_exact(bits, codes, tmp_path):
    positive = codes in ("signed, of positive numbers", "unsigned")

    class Layer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(24, 16)

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(torch.relu(x) if positive else x)

    x = torch.randn(40, 24)
    subnet = compressed(Layer(), x, inputs=bits, signed=True if codes.startswith("signed") else "auto", unsigned=codes.startswith("un"))
    path = gt.export_onnx(subnet, tmp_path / "net", x)
    # three times the range that was calibrated: both ends clip. Wide codes: a quotient of 2**15 may round to the next code, one in 2**(b-1)
    both_close(subnet, path, 3 * torch.randn(40, 24), limit=CLOSE if bits <= 9 else max(CLOSE, 2.0 ** (1 - bits)))
    assert kinds(path).count("QuantizeLinear") == (bits <= (9 if codes == "signed, of positive numbers" else 8))
    assert "Sign" not in kinds(path), "up to 16 bits nothing is bent"


@pytest.mark.parametrize("narrow_range", [True, False])
def test_the_lowest_of_256_codes_comes_out_only_where_codes_are_not_symmetric(narrow_range, tmp_path):
    """int8 has one code more below zero than above: the paper's range does not."""
    layer = nn.Linear(1, 1, bias=False)
    nn.init.ones_(layer.weight)
    subnet = compressed(nn.Sequential(layer), torch.ones(2, 1), inputs=8, signed=True, narrow_range=narrow_range)
    path = gt.export_onnx(subnet, tmp_path / "net", torch.ones(2, 1))
    x = torch.tensor([[-50.0], [50.0]])
    for opener in OPENERS.values():
        (out,) = opener(path)(feed_of(path, (x,), {}))
        assert out[0, 0] / out[1, 0] == pytest.approx(-1 if narrow_range else -128 / 127, rel=1e-6)
        assert narrow_range == (out[0, 0] == -out[1, 0])


@pytest.mark.parametrize(("unsigned", "narrow_range"), [(False, True), (False, False), (True, False)])
@pytest.mark.parametrize("exponent", [0.5, 1.3])
def test_a_learned_exponent_of_an_input_is_exact(exponent, unsigned, narrow_range, tmp_path):
    model = nn.Sequential(nn.Linear(24, 16), nn.Tanh(), nn.Linear(16, 4))
    subnet = compressed(model, torch.randn(9, 24), inputs=3, exponent=exponent, unsigned=unsigned, narrow_range=narrow_range)
    path = gt.export_onnx(subnet, tmp_path / "net", torch.randn(9, 24))
    assert kinds(path).count("Pow") == 2 and kinds(path).count("Sign") == (0 if unsigned else 2)
    both_close(subnet, path, 9 * torch.randn(99, 24))  # past both ends


@pytest.mark.parametrize("narrow_range", [True, False])
def test_an_input_of_more_than_sixteen_bits_is_rounded_without_a_sign_taken_off_and_given_back(narrow_range, tmp_path):
    subnet = compressed(nn.Sequential(nn.Linear(24, 16)), torch.randn(9, 24), inputs=20, narrow_range=narrow_range)
    path = gt.export_onnx(subnet, tmp_path / "net", torch.randn(9, 24))
    assert not {"Pow", "Sign", "QuantizeLinear"} & set(kinds(path))
    both_close(subnet, path, 3 * torch.randn(9, 24))


def _norm_net() -> nn.Module:
    """Two convolutions with batch norms that turn signs, and one that forgets a channel."""
    model = nn.Sequential(nn.Conv2d(3, 6, 3, bias=False), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 4, 3), nn.BatchNorm2d(4))
    with torch.no_grad():
        model[1].weight.copy_(torch.tensor([1.0, -2.0, 0.0, 0.5, -0.1, 3.0]))
        model[1].bias.copy_(torch.randn(6))
        model[1].running_mean.copy_(torch.randn(6))
        model[1].running_var.copy_(torch.rand(6) + 0.1)
    return model


@pytest.mark.parametrize("granularity", ["tensor", "channel"])
def test_a_batch_norm_goes_into_scales_whatever_its_sign(granularity, tmp_path):
    x = torch.randn(2, 3, 8, 8)
    subnet = compressed(_norm_net(), x, inputs=8, granularity=granularity)
    path = gt.export_onnx(subnet, tmp_path / "net", x)
    assert "BatchNormalization" not in kinds(path)
    both_close(subnet, path, torch.randn(5, 3, 8, 8))


@pytest.mark.parametrize(("granularity", "inputs"), [("tensor", 8), ("channel", None), *([("tensor", None), ("channel", 8)] * WHOLE)])
@pytest.mark.parametrize(
    ("bits", "turned", "plain"),
    [(2, "INT4", "INT4"), (3, "INT4", "INT4"), (4, "INT8", "INT4"), (8, "INT16", "INT8"), (16, "INT16", "INT16")],
)
def test_the_lowest_code_with_its_sign_turned_is_kept_in_the_next_wider_type(bits, turned, plain, granularity, inputs, tmp_path):
    """Minus the lowest code is no code: a batch norm with a negative weight makes it one. The second has a positive weight."""
    x = torch.randn(2, 3, 8, 8)
    subnet = compressed(_norm_net(), x, inputs=inputs, widths=(bits,), granularity=granularity, reach=0.5)
    path = gt.export_onnx(subnet, tmp_path / "net", x)
    codes = [item for item in onnx.load(path).graph.initializer if len(item.dims) == 4 and item.data_type != TensorProto.FLOAT]
    found = {item.dims[0]: (TensorProto.DataType.Name(item.data_type), numpy_helper.to_array(item).astype(np.int64)) for item in codes}
    assert (found[6][0], found[4][0]) == (turned, plain)
    first, second = found[6][1], found[4][1]
    assert second.min() == -(2 ** (bits - 1)) and first[1].max() == 2 ** (bits - 1) - (bits == 16) and not first[2].any()
    both_close(subnet, path, torch.randn(5, 3, 8, 8))


class Products(nn.Module):
    """Matrices that are multiplied with in every way that a graph knows: turned or not, by rows, in two places, a convolution backwards."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.plain, self.shared = nn.Linear(6, 8), nn.Parameter(torch.randn(8, 8)), nn.Parameter(torch.randn(8, 8))
        self.table, self.stack = nn.Parameter(torch.randn(9, 8)), nn.Parameter(torch.randn(3, 8, 8))
        self.bias = nn.Parameter(torch.randn(8))
        self.up = nn.ConvTranspose1d(8, 5, 3, stride=2)

    def forward(self, x: Tensor, ids: Tensor) -> Tensor:
        x = torch.relu(self.first(x)) @ self.plain
        x = torch.addmm(self.bias, x, self.shared) + nn.functional.linear(x, self.shared)
        x = torch.tanh(x) + nn.functional.embedding(ids, self.table)
        x = torch.einsum("bi,sij->bsj", x, self.stack)
        return self.up(x.transpose(1, 2))


@pytest.mark.parametrize("inputs", [None, 8])
def test_steps_of_channels_are_scales_along_their_axis(inputs, tmp_path):
    torch.manual_seed(1)
    args = torch.randn(4, 6), torch.randint(0, 9, (4,))
    # not a table of 12 bits: OpenVINO 2026 does not open this network then, whatever the codes, with one range either
    subnet = compressed(Products(), *args, inputs=inputs, widths=(8, 4, 8, 12, 3, 4), granularity="channel")
    axes = {name: form.axis for name, form in subnet.geta_info.formats.items()}
    assert axes == {"first.weight": 0, "plain": 1, "shared": 0, "table": None, "stack": 0, "up.weight": 1}
    path = gt.export_onnx(subnet, tmp_path / "net", args)
    graph = onnx.load(path).graph
    shapes = {item.name: tuple(item.dims) for item in graph.initializer}
    scales = [shapes[node.input[1]] for node in graph.node if node.op_type == "DequantizeLinear" and shapes[node.input[1]]]
    assert len(scales) >= 6 and all(len(scale) == 1 for scale in scales)
    both_close(subnet, path, torch.randn(7, 6), torch.randint(0, 9, (7,)))


@pytest.mark.parametrize("bits", [3, 8, 16])
def test_a_step_a_channel_costs_four_bytes_in_the_file(bits, tmp_path):
    sizes = {}
    for granularity in ("tensor", "channel"):
        subnet = compressed(nn.Sequential(nn.Linear(64, 500)), torch.randn(2, 64), widths=(bits,), granularity=granularity)
        path = gt.export_onnx(subnet, tmp_path / granularity, torch.randn(2, 64))
        both_close(subnet, path, torch.randn(5, 64))
        sizes[granularity] = path.stat().st_size
    # a zero point each stands beside it, of one or two bytes
    assert 500 * 4 <= sizes["channel"] - sizes["tensor"] <= 500 * 6 + 50


def test_a_layer_norm_after_an_embedding_keeps_its_eps(tmp_path):
    """OpenVINO moves an integer table's scale past a layer norm, whose eps then is of another size, unless something stands between."""

    class Tokens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table, self.norm, self.head = nn.Embedding(50, 16), nn.LayerNorm(16, eps=1e-3), nn.Linear(16, 4)
            nn.init.normal_(self.table.weight, std=0.02)

        def forward(self, ids: Tensor) -> Tensor:
            return self.head(self.norm(self.table(ids)))

    ids = torch.randint(0, 50, (3, 7))
    subnet = compressed(Tokens(), ids, inputs=8)
    path = gt.export_onnx(subnet, tmp_path / "net", ids)
    assert kinds(path).index("Gather") < kinds(path).index("DequantizeLinear"), "rows are looked up as integers"
    both_close(subnet, path, torch.randint(0, 50, (5, 7)))


def test_no_runtime_quantizes_an_input_that_was_not_quantized(tmp_path):
    """OpenVINO does by its defaults where it sees an integer weight, an error of 1 %: a clip that changes nothing keeps it from that."""
    import openvino

    x = torch.randn(8, 256)
    subnet = compressed(nn.Sequential(nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 8)), x)
    path = gt.export_onnx(subnet, tmp_path / "net", x)
    core = openvino.Core()
    with kept_signal_stack():
        plain = core.compile_model(core.read_model(str(path)), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    assert relative_error([plain([x.numpy()])[0]], reference(subnet, (x,), {})) <= CLOSE


@pytest.mark.parametrize("granularity", ["tensor", "channel"])
def test_integer_layers_run_as_integers_in_openvino(granularity, tmp_path):
    x = torch.randn(2, 3, 16, 16)
    convs = [nn.Conv2d(3, 32, 3), nn.BatchNorm2d(32), nn.ReLU(), nn.Conv2d(32, 32, 3), nn.ReLU()]
    model = nn.Sequential(*convs, nn.Flatten(), nn.Linear(4608, 8))
    path = gt.export_onnx(compressed(model, x, inputs=8, granularity=granularity), tmp_path / "net", x, any_processor=False)
    run: Any = open_openvino(path, profile=True)
    run(feed_of(path, (x,), {}))
    heavy = [item.exec_type for item in run.request.profiling_info if item.node_type.startswith(("Convolution", "FullyConnected"))]
    assert len(heavy) == 3 and all(kind.endswith("I8") for kind in heavy), heavy


def test_a_tied_weight_is_stored_once(tmp_path):
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Embedding(300, 32)

        def forward(self, ids: Tensor) -> Tensor:
            return self.table(ids).relu() @ self.table.weight.t()

    ids = torch.randint(0, 300, (2, 5))
    subnet = compressed(Tied(), ids)
    path = gt.export_onnx(subnet, tmp_path / "net", ids)
    assert path.stat().st_size < 9600 + 4000
    both_close(subnet, path, torch.randint(0, 300, (4, 5)))


def chain() -> nn.Module:
    """Convolutions and linear layers one after the other, each with a bias."""
    convs = [nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU()]
    return nn.Sequential(*convs, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 5))


@pytest.mark.parametrize("bits", [4, 8])
def test_both_runtimes_are_exact_where_biases_stay_as_they_are(bits, tmp_path):
    """A bias that is rounded to a product of two steps takes sums over the middle between two codes, and few bits show it most."""
    torch.manual_seed(5)  # with others a sum may lie in the middle between two of 256 codes, within float32's own error
    subnet = compressed(chain(), image(16), inputs=bits, widths=(4,))
    both_close(subnet, gt.export_onnx(subnet, tmp_path / "exact", image()), image(64))
    fast = gt.export_onnx(subnet, tmp_path / "fast", image(), integer_biases=True)
    found = errors(subnet, fast, image(64))
    assert found["OpenVINO"] <= CLOSE < found["ONNX Runtime"] < 1


def test_a_loaded_subnet_exports_to_the_same_outputs(tmp_path):
    subnet = compressed(conv_net(), image(), inputs=8, widths=(5,))
    loaded = gt.load(gt.save(subnet, tmp_path / "net.safetensors"))
    first, second = (gt.export_onnx(net, tmp_path / f"{index}.onnx", image()) for index, net in enumerate((subnet, loaded)))
    for opener in OPENERS.values():
        np.testing.assert_array_equal(opener(first)(feed_of(first, (image(),), {}))[0], opener(second)(feed_of(second, (image(),), {}))[0])


def test_keyword_inputs_are_inputs_of_the_file(tmp_path):
    entry = ZOO["many_inputs"]
    subnet = half_cut("many_inputs", inputs=True)
    path = gt.export_onnx(subnet, tmp_path / "net", entry.inputs(2), example_kwargs=entry.kwargs(2))
    assert len(onnx.load(path).graph.input) == 3
    for opener in OPENERS.values():
        assert worst(opener(path), subnet, path, "many_inputs", (2, 5)) <= CLOSE


# The zoo, and a trained network

EXACT = """resnet_basic resnext densenet shufflenet squeeze_excite depthwise_multiplier conv1d conv3d tied_linear mlp_gelu_norm
    glu_chunk bare_parameter attention multihead_attention encoder_layer lstm bert_sdpa vit_sdpa llama_sdpa phi_sdpa roberta distilbert
    electra deit swin qwen3 mamba"""  # docs/onnx.md has more, and says why some are not exact in both runtimes


@pytest.mark.slow
@pytest.mark.parametrize("name", EXACT.split())
def test_nets_of_the_zoo_are_within_a_thousandth_in_both_runtimes(name, tmp_path):
    """One export a net here, of one kind in three; ``make onnx-table`` tries each net with and without quantized inputs."""
    entry, kind = ZOO[name], EXACT.split().index(name) % 3
    subnet = half_cut(name, inputs=kind > 0, granularity=("tensor", "tensor", "channel")[kind])
    path = gt.export_onnx(subnet, tmp_path / "net", entry.inputs(2), example_kwargs=entry.kwargs(2))
    for opener in OPENERS.values():
        run = opener(path)
        assert worst(run, subnet, path, name, (2, 5)) <= 1e-3  # issue 6
        assert worst_of_other_sizes(run, subnet, path, name) <= 1e-3


def test_enough_nets_are_tested():
    assert len(set(EXACT.split())) >= 25


@pytest.mark.slow
def test_top_1_on_the_digits_is_unchanged(tmp_path):
    data = digits.load_digits()
    model = digits.train_dense(data, seed=0, epochs=6)
    geta = gt.GETA(model, data.train_images[:2], quantize=gt.QuantConfig(activations=True, initial_bits=8))
    geta.calibrate(digits.calibration_batches(data))
    optimizer = geta.qasso(
        torch.optim.Adam, budget=gt.Budget(0.5, bit_range=(4, 8), activation_bit_range=(8, 8)), lr=1e-3,
        schedule=gt.Schedule.for_steps(6 * data.steps_per_epoch),
    )  # fmt: skip
    digits.train(model, optimizer, data, epochs=6, seed=0)
    subnet = geta.construct_subnet().eval()
    path = gt.export_onnx(subnet, tmp_path / "net", data.test_images[:2])
    expected = reference(subnet, (data.test_images,), {})[0]
    for opener in OPENERS.values():
        (found,) = opener(path)(feed_of(path, (data.test_images,), {}))
        assert (found.argmax(1) == data.test_labels.numpy()).mean() == (expected.argmax(1) == data.test_labels.numpy()).mean()
        np.testing.assert_array_equal(found.argmax(1), expected.argmax(1))


@pytest.mark.parametrize(("bits", "signed", "floats"), [(8, True, 1), (8, "auto", 2), (6, "auto", 0)])
@pytest.mark.parametrize("norm", [False, True])
def test_a_file_for_any_processor_keeps_sums_that_may_saturate_out_of_integer_kernels(bits, signed, floats, norm, tmp_path):
    """Two products of a byte, up to 255, and a code: 127 each do not fit into 16 bits, 31 each do."""
    x = torch.randn(2, 4, 8, 8)
    model = nn.Sequential(nn.Conv2d(4, 8, 3), *[nn.BatchNorm2d(8)] * norm, nn.ReLU(), nn.Flatten(), nn.Linear(288, 5))
    subnet = compressed(model, x, inputs=8, widths=(bits,), signed=signed)
    for wary in (False, True):
        path = gt.export_onnx(subnet, tmp_path / f"net_{wary}", x, any_processor=wary)
        saved = onnx.load(path)
        assert {item.key: item.value for item in saved.metadata_props}["any_processor"] == str(wary).lower()
        of_bytes = [item.name for item in saved.graph.initializer if item.data_type == TensorProto.INT8]
        after = {node.input[0]: node.op_type for node in saved.graph.node}
        weights = [node.output[0] for node in saved.graph.node if node.op_type == "DequantizeLinear" and node.input[0] in of_bytes]
        assert len(weights) == 2
        clipped = [name for name in weights if after.get(name) == "Clip"]
        assert len(clipped) == (floats if wary else 0), clipped  # after ReLU signed bytes end at 127, which fits, and others at 255
    both_close(subnet, path, 2 * x)


def test_a_processor_is_trusted_with_bytes_when_it_says_that_it_has_dot_products_of_them(tmp_path, monkeypatch):
    monkeypatch.setattr(processor.platform, "machine", lambda: "x86_64")
    said = {"old": "flags\t\t: fpu sse avx avx2 fma", "new": "flags\t\t: fpu avx2 avx512f avx512_vnni", "client": "flags : avx2 avx_vnni"}
    found = {}
    for name, text in said.items():
        (tmp_path / name).write_text(f"processor : 0\n{text}\nbugs : none\n")
        found[name] = processor.adds_bytes_exactly.__wrapped__(str(tmp_path / name))
    assert found == {"old": False, "new": True, "client": True}
    assert processor.adds_bytes_exactly.__wrapped__(str(tmp_path / "none")) is False
    monkeypatch.setattr(processor.platform, "machine", lambda: "aarch64")
    assert processor.adds_bytes_exactly.__wrapped__(str(tmp_path / "none")) is True
