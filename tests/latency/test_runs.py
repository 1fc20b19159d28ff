"""The latency table compares like with like, says what it measured, and shows itself."""

from __future__ import annotations

import gc
import json

import pytest
import torch
from torch import Tensor, nn

import geta_nb as gt
from geta_nb.errors import ArtifactError, ConfigError, GetaWarning
from geta_nb.latency.runs import without_quantizers
from geta_nb.latency.runtimes import open_openvino
from geta_nb.latency.signal_stack import signal_stack
from geta_nb.latency.table import LatencyRow, LatencyTable, ratio_of, take_turns
from tests.files.nets import conv_net, image
from tests.onnx.checks import compressed


@pytest.fixture(scope="module")
def trained():
    torch.manual_seed(0)
    model = conv_net()
    geta = gt.GETA(model, image(), quantize=gt.QuantConfig(activations=True, initial_bits=8))
    geta.calibrate([(image(8),)])
    geta.mask([0, 1])
    return model, geta.construct_subnet()


def test_dense_is_the_model_without_its_quantizers(trained):
    model, _ = trained
    before = list(model.state_dict())
    dense = without_quantizers(model)
    assert list(model.state_dict()) == before
    assert {name.rpartition(".")[2] for name in dense.state_dict()} <= {
        "weight", "bias", "running_mean", "running_var", "num_batches_tracked"
    }
    assert not dense.stem._forward_pre_hooks and torch.equal(dense.stem.weight, model.stem.parametrizations.weight.original)


def test_three_backends_two_batch_sizes_one_table(trained):
    model, subnet = trained
    threads, mode = torch.get_num_threads(), subnet.training
    table = gt.benchmark_latency(subnet, against=model, example_inputs=image(), batch_sizes=(1, 3), rounds=2)
    assert torch.get_num_threads() == threads and subnet.training is mode
    assert [(row.batch, row.backend) for row in table.rows] == [(b, name) for b in (1, 3) for name in ("torch", "onnxruntime", "openvino")]
    for row in table.rows:
        assert row.subnet_ms > 0 and row.dense_ms > 0 and row.speedup > 0 and row.speedup_eager > 0
    # 8-bit codes: one step of 1/127 of some activation at most, ONNX Runtime's rounded biases
    assert max(row.difference for row in table.rows) < 0.02
    assert set(table.file_bytes) == {"subnet", "dense"} and set(table.versions) == {"torch", "onnxruntime", "openvino"}
    assert json.loads(json.dumps(table.to_dict()))["rows"][0]["backend"] == "torch"


def test_openvino_leaves_the_signal_stack_as_it_was(trained, tmp_path):
    """Its plugin replaces that stack; two that go in the order in which they came left an address of nothing: the next signal kills."""
    path = gt.export_onnx(trained[1], tmp_path / "net", image())
    before = signal_stack()
    first, second = open_openvino(path), open_openvino(path)
    assert signal_stack() == before
    del first
    gc.collect()
    del second
    gc.collect()
    assert signal_stack() == before


def test_without_a_dense_network_there_is_no_speed_up(trained):
    table = gt.benchmark_latency(trained[1], example_inputs=image(), backends=("torch",), batch_sizes=(2,), rounds=1)
    (row,) = table.rows
    assert (row.dense_ms, row.speedup, row.speedup_eager, table.file_bytes) == (None, None, None, {})


def test_systems_take_turns_and_ratios_are_of_neighbours():
    calls: list[str] = []
    now = [0.0]

    def system(name: str, seconds: float):
        def call() -> None:
            calls.append(name)
            now[0] += seconds

        return call

    systems = {("a", ""): system("a", 1.0), ("b", ""): system("b", 2.0)}
    times = take_turns(systems, 3, lambda: now[0])
    assert times == {("a", ""): [1.0] * 3, ("b", ""): [2.0] * 3}
    assert calls[-6:] == ["a", "b", "b", "a", "a", "b"]
    assert ratio_of([1.0, 10.0, 3.0], [1.0, 1.0, 1.0]) == 3.0 and ratio_of(None, [1.0]) is None


def test_the_view_has_every_number_and_a_picture():
    rows = (LatencyRow("torch", 1, 4.0, 2.0, 2.0, 2.0, 0.0), LatencyRow("openvino", 1, 3.0, 0.5, 6.0, 8.0, 1e-7))
    bundle = LatencyTable(rows, 1, 5, "wall", {"subnet": 1000, "dense": 9000}, {"torch": "<b>1</b>"})._repr_mimebundle_()
    assert "OpenVINO" in bundle["text/plain"] and "6.0×" in bundle["text/plain"]
    for words in ("0.5 ms", "8.0×", "<svg", "of 9", "&lt;b&gt;1&lt;/b&gt;", "time on the wall"):
        assert words in bundle["text/html"], words
    assert bundle["image/svg+xml"].startswith("<svg")


@pytest.mark.parametrize(
    ("options", "message"),
    [({"backends": ("tensorflow",)}, "backends"), ({"backends": "torch"}, "backends"), ({"rounds": 0}, "rounds"),
     ({"batch_sizes": ()}, "batch_sizes"), ({"threads": 1.5}, "threads"), ({"clock": "sun"}, "clock")],
)  # fmt: skip
def test_options_without_sense_are_refused(trained, options, message):
    with pytest.raises(ConfigError, match=message):
        gt.benchmark_latency(trained[1], example_inputs=image(), **options)


def test_a_module_that_is_no_subnet_is_refused():
    with pytest.raises(ArtifactError, match="no subnet"):
        gt.benchmark_latency(conv_net(), example_inputs=image(), rounds=1)


def test_a_file_with_a_fixed_batch_is_measured_at_that_size_alone():
    class ByTheSample(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.kernels = nn.Conv1d(3, 4, 3), nn.Linear(4, 4 * 4 * 3)

        def forward(self, x: Tensor) -> Tensor:
            y = self.stem(x).relu()
            batch, channels, length = y.shape
            kernels = self.kernels(y.mean(2)).view(batch * 4, channels, 3)
            return nn.functional.conv1d(y.reshape(1, -1, length), kernels, groups=batch).view(batch, 4, -1)

    inputs = torch.randn(2, 3, 9)
    subnet = compressed(ByTheSample(), inputs)
    with pytest.warns(GetaWarning, match="fixed"):
        table = gt.benchmark_latency(subnet, example_inputs=inputs, backends=("onnxruntime",), batch_sizes=(2,), rounds=1)
    assert {row.batch for row in table.rows} == {2}
    with pytest.warns(GetaWarning, match="fixed"), pytest.raises(ConfigError, match=r"(?s)batch_sizes.*2 alone.*groups.*got: +\[1, 2\]"):
        gt.benchmark_latency(subnet, example_inputs=inputs, backends=("onnxruntime",), batch_sizes=(1, 2), rounds=1)
