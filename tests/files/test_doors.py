"""A subnet goes through the doors that torch and transformers have, and reads back as the same network."""

from __future__ import annotations

import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

import geta_nb as gt
from geta_nb.errors import ArtifactError
from geta_nb.files.pretrained import save_pretrained
from tests.files.nets import conv_net, image
from tests.zoo.catalogue import ZOO


def half(model: nn.Module, *args, inputs: bool = False, protect: tuple[str, ...] = (), kwargs=None) -> nn.Module:
    geta = gt.GETA(
        model, args, example_kwargs=kwargs, quantize=gt.QuantConfig(activations=inputs, initial_bits=8), protect=protect
    )
    if inputs:
        geta.calibrate([args])
    geta.mask([group for family in geta.families for group in family.groups[: len(family.groups) // 2]])
    return geta.construct_subnet()


@pytest.fixture(params=[False, True], ids=["weights", "weights and inputs"])
def subnet(request) -> nn.Module:
    torch.manual_seed(0)
    return half(conv_net(), image(), inputs=request.param).eval()


def test_torch_export_saves_and_loads_it(subnet, tmp_path):
    program = torch.export.export(subnet, (image(),), dynamic_shapes=({0: torch.export.Dim.AUTO},))
    torch.export.save(program, tmp_path / "net.pt2")
    again = torch.export.load(tmp_path / "net.pt2").module()
    for batch in (2, 5):
        torch.testing.assert_close(again(image(batch)), subnet(image(batch)), rtol=0, atol=0)


def test_a_safetensors_state_dict_fills_the_same_module(subnet, tmp_path):
    save_file(subnet.state_dict(), tmp_path / "state.safetensors")
    path = gt.save(subnet, tmp_path / "net")
    fresh = gt.load(path)
    with torch.no_grad():
        for parameter in fresh.parameters():
            parameter.zero_()
    fresh.load_state_dict(load_file(tmp_path / "state.safetensors"))
    torch.testing.assert_close(fresh(image(3)), subnet(image(3)), rtol=0, atol=0)


@pytest.mark.filterwarnings("ignore")  # the compiler's own
@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_torch_compile_runs_it(subnet, backend):
    if backend == "inductor" and not (shutil.which("g++") or shutil.which("clang++")):
        pytest.skip("inductor wants a C++ compiler")
    torch._dynamo.reset()
    compiled = torch.compile(subnet, backend=backend, fullgraph=True)
    with torch.no_grad():
        # fused sums in another order: a few eps of float32, relative to outputs near 1
        torch.testing.assert_close(compiled(image(3)), subnet(image(3)), rtol=1e-5, atol=1e-5)


@pytest.mark.filterwarnings("ignore")  # of transformers' own imports
def test_from_pretrained_reads_a_native_subnet_back(tmp_path):
    entry = ZOO["llama_sdpa"]
    subnet = half(entry.build(), *entry.inputs(2))
    assert subnet.geta_info.kind == "native"
    shared = subnet.config
    before = shared.to_dict()
    assert save_pretrained(subnet, tmp_path / "net", entry.inputs(2)) == tmp_path / "net"
    assert shared.to_dict() == before and subnet.config is not shared
    again = type(subnet).from_pretrained(tmp_path / "net").eval()
    assert [tuple(p.shape) for p in again.parameters()] == [tuple(p.shape) for p in subnet.parameters()]
    assert again.config.num_attention_heads == 2 and again.config.intermediate_size == 20
    with torch.no_grad():
        torch.testing.assert_close(again(*entry.inputs(5)).logits, subnet(*entry.inputs(5)).logits, rtol=0, atol=0)


@pytest.mark.filterwarnings("ignore")
def test_sizes_that_a_configuration_cannot_say_are_named(tmp_path):
    entry = ZOO["bert_sdpa"]
    subnet = half(entry.build(), *entry.inputs(2), kwargs=entry.kwargs(2))  # heads: their size follows from their number there
    with pytest.raises(ArtifactError, match=r"(?s)no value of the configuration.*attention.*gt\.save"):
        save_pretrained(subnet, tmp_path / "net", entry.inputs(2), example_kwargs=entry.kwargs(2))
    assert not (tmp_path / "net").exists()


def test_a_subnet_of_another_kind_is_refused(tmp_path):
    with pytest.raises(ArtifactError, match=r"(?s)not a native subnet of a transformers model.*gt\.save"):
        save_pretrained(half(conv_net(), image()), tmp_path / "net", image())
