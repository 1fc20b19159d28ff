"""A native subnet comes back as a model of its own class, made narrow by the file: it generates, trains and is saved again as before."""

from __future__ import annotations

import copy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import geta_nb as gt
from geta_nb.errors import ArtifactError, ConfigError
from geta_nb.files import container
from tests.subnet.test_any_size import Halves
from tests.zoo.catalogue import ZOO


class Net(nn.Module):
    """A width that a view names, a norm, and a tied pair."""

    def __init__(self, power: float = 1.0) -> None:
        super().__init__()
        self.heads, self.power = 4, power
        self.first, self.norm, self.second, self.twin = nn.Linear(6, 16), nn.BatchNorm1d(16), nn.Linear(16, 16), nn.Linear(16, 16)
        self.twin.weight = self.second.weight
        self.last = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.first(x)).relu()
        y = self.twin(self.second(y).relu()).relu() ** self.power
        return self.last(y.view(-1, self.heads, y.shape[-1] // self.heads).flatten(1))


def saved(path: Path, *, inputs: bool = False) -> tuple[nn.Module, Path]:
    torch.manual_seed(0)
    x = torch.randn(4, 6)
    geta = gt.GETA(Net().eval(), x, quantize=gt.QuantConfig(activations=inputs))
    geta.calibrate([x])
    geta.mask(range(0, len(geta.groups), 3))
    subnet = geta.construct_subnet()
    assert subnet.geta_info.kind == "native"
    return subnet, gt.save(subnet, path)


def state(model: nn.Module) -> dict[str, Any]:
    tensors = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    return tensors | {path: {k: v for k, v in vars(part).items() if isinstance(v, int)} for path, part in model.named_modules()}


def assert_untouched(model: nn.Module, before: dict[str, Any]) -> None:
    after = state(model)
    assert after.keys() == before.keys()
    assert all(torch.equal(value, before[name]) if isinstance(value, Tensor) else value == before[name] for name, value in after.items())
    assert not any(part._forward_pre_hooks for part in model.modules())


@pytest.mark.parametrize("inputs", [False, True])
def test_a_fresh_model_becomes_the_subnet(inputs: bool, tmp_path: Path) -> None:
    subnet, path = saved(tmp_path / "net", inputs=inputs)
    fresh = Net().train()
    model = gt.load(path, model=fresh)
    assert model is fresh and model.training and model.second.weight is model.twin.weight
    assert {n: p.shape for n, p in model.named_parameters()} == {n: p.shape for n, p in subnet.named_parameters()}
    x = torch.randn(9, 6)
    torch.testing.assert_close(model.eval()(x), subnet(x), rtol=0, atol=0)
    assert model.first.out_features == subnet.first.out_features < 16 and model.geta_info.widths == subnet.geta_info.widths
    assert gt.save(model, tmp_path / "again").read_bytes() == path.read_bytes()
    model.train()(x).sum().backward()
    assert model.norm.num_batches_tracked == 1 + subnet.norm.num_batches_tracked
    again = gt.GETA(model, x, quantize=None)
    assert len(again.groups) > 0


def test_a_model_without_values_is_filled(tmp_path: Path) -> None:
    subnet, path = saved(tmp_path / "net")
    with torch.device("meta"):
        model = Net()
    x = torch.randn(3, 6)
    torch.testing.assert_close(gt.load(path, model=model).eval()(x), subnet(x), rtol=0, atol=0)


def test_a_subnet_of_a_subnet_comes_back_from_the_dense_class(tmp_path: Path) -> None:
    subnet, _ = saved(tmp_path / "net")
    geta = gt.GETA(subnet, torch.randn(4, 6))
    geta.mask(range(0, len(geta.groups), 4))
    smaller = geta.construct_subnet()
    assert smaller.geta_info.kind == "native"
    model = gt.load(gt.save(smaller, tmp_path / "smaller"), model=Net()).eval()
    x = torch.randn(3, 6)
    torch.testing.assert_close(model(x), smaller(x), rtol=0, atol=0)


class Wider(Net):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Linear(7, 16), nn.BatchNorm1d(16)


class Narrower(Net):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(6, 2)


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (lambda: nn.Linear(6, 3), "other parameters"),
        (lambda: Net().double(), "not one of the dense network"),
        (Narrower, "not one of the dense network"),
        (lambda: Net(power=2.0), r"(?s)does not compute what the network in the file computes.*a difference of"),
        (Wider, r"(?s)first.weight.*\(16, 6\).*\(16, 7\)"),
    ],
)
@pytest.mark.parametrize("inputs", [False, True])
def test_another_model_is_refused_and_stays_as_it_was(model: Any, said: str, inputs: bool, tmp_path: Path) -> None:
    _, path = saved(tmp_path / "net", inputs=inputs)
    other = model()
    before = state(other)
    with pytest.raises(ArtifactError, match=said):
        gt.load(path, model=other)
    assert_untouched(other, before)


def test_what_cannot_be_made_narrow_says_why(tmp_path: Path) -> None:
    _, path = saved(tmp_path / "net")
    with pytest.raises(ConfigError, match="into and model"):
        gt.load(path, model=Net(), into=Net())
    with pytest.raises(ConfigError, match="no module"):
        gt.load(path, model="Net")
    again = gt.load(gt.save(gt.load(path), tmp_path / "again"), model=Net())  # a network without its class forgets nothing
    assert again.geta_info.kind == "native"
    halves, other = Halves().eval(), torch.randn(2, 3, 8, 8)
    geta = gt.GETA(halves, other)
    geta.mask([2, 7])
    subnet = geta.construct_subnet()
    assert subnet.geta_info.kind == "graph"
    with pytest.raises(ArtifactError, match="no widths of modules"):
        gt.load(gt.save(subnet, tmp_path / "graph"), model=Halves())


@pytest.mark.parametrize(
    "widths",
    [
        {"first": {"forward": 3}}, {"first": {"out_features": "9"}}, {"first": {"out_features": 1.5}}, {"first": {"training": 0}},
        {"nowhere": {"out_features": 3}}, {"first": {"weight": 3}}, {"first": 3}, [1], {"first": {"__class__": 3}},
    ],
)  # fmt: skip
def test_widths_that_someone_made_up_change_nothing(widths: Any, tmp_path: Path) -> None:
    _, path = saved(tmp_path / "net")
    forged = with_header(path, tmp_path / "forged", widths=widths)
    model = Net()
    before = state(model)
    with pytest.raises(ArtifactError):
        gt.load(forged, model=model)
    assert_untouched(model, before)


def with_header(path: Path, target: Path, **changes: Any) -> Path:
    """Write a file again with another header."""
    import base64
    import json
    import zlib

    texts, blocks = container.read(path)
    header = json.loads(zlib.decompress(base64.b64decode(texts["network"]))) | changes
    text = base64.b64encode(zlib.compress(json.dumps(header).encode())).decode()
    container.write(target, blocks, texts | {"network": text})
    return target


@pytest.mark.slow
@pytest.mark.parametrize("name", ["llama_sdpa", "gpt2_sdpa", "qwen3", "t5_eager"])
@pytest.mark.parametrize("inputs", [False, True])
def test_language_models_generate_as_before(name: str, inputs: bool, tmp_path: Path) -> None:
    """Greedy, by beams, with padding and the cache of keys and values on, at lengths that the example has not."""
    entry = ZOO[name]
    model, args, kwargs = entry.build(), entry.inputs(2), entry.kwargs(2)
    geta = gt.GETA(model, args, example_kwargs=kwargs, quantize=gt.QuantConfig(activations=inputs))
    geta.calibrate([args])
    geta.mask([index for index in range(len(geta.groups)) if index % 3 == 0])
    subnet = geta.construct_subnet()
    assert subnet.geta_info.kind == "native"
    fresh = type(model)(copy.deepcopy(model.config)).eval()
    again = gt.load(gt.save(subnet, tmp_path / "net"), model=fresh)
    tokens = torch.randint(4, 60, (2, 9))
    mask = torch.ones_like(tokens)
    mask[0, :4] = 0
    for options in ({"num_beams": 1}, {"num_beams": 3}):
        given = {"attention_mask": mask, "max_new_tokens": 6, "do_sample": False, "use_cache": True, "pad_token_id": 0, **options}
        expected = model.generate(tokens, **given)
        assert torch.equal(subnet.generate(tokens, **given), expected)
        assert torch.equal(again.generate(tokens, **given), expected)


CHILD = """
import sys, torch, geta_nb as gt
from transformers import AutoConfig, AutoModelForCausalLM
folder = sys.argv[1]
model = gt.load(folder + "/net.safetensors", model=AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder))).eval()
tokens = torch.load(folder + "/tokens.pt")
torch.save(model.generate(tokens, max_new_tokens=7, do_sample=False, pad_token_id=0), folder + "/found.pt")
"""


@pytest.mark.slow
def test_a_fresh_process_needs_the_file_and_the_configuration(tmp_path: Path) -> None:
    entry = ZOO["llama_sdpa"]
    model = entry.build()
    geta = gt.GETA(model, entry.inputs(2), example_kwargs=entry.kwargs(2))
    geta.mask([index for index in range(len(geta.groups)) if index % 3])  # layers lose different shares
    gt.save(geta.construct_subnet(), tmp_path / "net.safetensors")
    model.config.save_pretrained(tmp_path)
    tokens = torch.randint(4, 60, (2, 11))
    torch.save(tokens, tmp_path / "tokens.pt")
    subprocess.run([sys.executable, "-W", "ignore", "-c", CHILD, str(tmp_path)], check=True, timeout=600)
    expected = model.generate(tokens, max_new_tokens=7, do_sample=False, pad_token_id=0)
    assert torch.equal(torch.load(tmp_path / "found.pt"), expected)
