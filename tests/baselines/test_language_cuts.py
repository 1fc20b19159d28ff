"""Cuts of language models: SliceGPT's turns change nothing until something is deleted, LLM-Pruner's groups are ours, sizes are kept."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

from geta_nb import GETA
from geta_nb.baselines import language, llm_pruner, slicegpt
from geta_nb.bench.texts import next_token_loss
from geta_nb.errors import BudgetError, InputError

transformers = pytest.importorskip("transformers")
WIDTH, LAYERS, VOCABULARY = 16, 2, 48


def llama(**options) -> nn.Module:
    given = {
        "vocab_size": VOCABULARY, "hidden_size": WIDTH, "intermediate_size": 24, "num_hidden_layers": LAYERS, "num_attention_heads": 4,
        "num_key_value_heads": 4, "max_position_embeddings": 64, "tie_word_embeddings": False, "use_cache": False,
    }  # fmt: skip
    torch.manual_seed(0)
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**{**given, **options})).eval()
    with torch.no_grad():
        for norm in (module for name, module in model.named_modules() if name.endswith("norm")):
            norm.weight.uniform_(0.5, 1.5)
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.mul_(8)  # far from linear
    return model


@pytest.fixture
def rows() -> torch.Tensor:
    return torch.randint(0, VOCABULARY, (12, 10), generator=torch.Generator().manual_seed(1))


def logits(model: nn.Module, rows: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(rows).logits


def size(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def assert_same(found: torch.Tensor, expected: torch.Tensor) -> None:
    # float32 weights, turned once in float64: rounding of some 20 layers of sums of at most 24 terms, relative to the largest logit
    assert float((found - expected).abs().max()) < 1e-5 * float(expected.abs().max())


def test_slicegpt_with_nothing_deleted_computes_the_same_function(rows):
    model = llama()
    turns = slicegpt.directions(model, rows)
    assert_same(logits(slicegpt.sliced(model, turns, WIDTH), rows), logits(model, rows))


def test_turns_are_rotations_and_the_first_axis_carries_most(rows):
    model = llama()
    turns = slicegpt.directions(model, rows)
    assert len(turns) == 2 * LAYERS + 1
    for turn in turns:
        torch.testing.assert_close(turn.T @ turn, torch.eye(WIDTH, dtype=torch.float64), rtol=0, atol=1e-12)  # float64, 16 terms
    stream = model.model.embed_tokens(rows).detach().double().flatten(0, 1)
    stream = stream / stream.pow(2).mean(-1, keepdim=True).sqrt()  # eps is 1e-6 of numbers of size 1
    energy = (stream @ turns[0]).pow(2).sum(0)
    assert bool((energy[:-1] >= energy[1:] * (1 - 1e-6)).all())


def test_slicing_a_stream_that_fills_a_subspace_deletes_nothing_of_it(rows):
    model, left = llama(), 5
    basis = torch.linalg.qr(torch.randn(WIDTH, left))[0]
    onto = basis @ basis.T
    with torch.no_grad():
        model.model.embed_tokens.weight.copy_(model.model.embed_tokens.weight @ onto)
        for layer in model.model.layers:
            for writes in (layer.self_attn.o_proj, layer.mlp.down_proj):
                writes.weight.copy_(onto @ writes.weight)
    turns = slicegpt.directions(model, rows)
    assert_same(logits(slicegpt.sliced(model, turns, left), rows), logits(model, rows))
    less = logits(slicegpt.sliced(model, turns, left - 1), rows)
    assert float((less - logits(model, rows)).abs().max()) > 1e-2 * float(logits(model, rows).abs().max())


def test_slicegpt_keeps_the_widest_stream_that_the_parameters_allow(rows):
    model = llama()
    for parameters in (size(model), size(model) // 2, 400):
        width = slicegpt.slice_width(model, parameters)
        cut = slicegpt.cut(model, rows, next_token_loss, parameters=parameters)
        assert size(cut) <= parameters
        assert cut.lm_head.in_features == cut.model.embed_tokens.embedding_dim == width
        assert size(slicegpt.sliced(model, slicegpt.directions(model, rows), width + 1)) > parameters
    with pytest.raises(BudgetError, match="out of reach with one channel"):
        slicegpt.slice_width(model, 100)


def test_slicegpt_leaves_the_network_as_it_was_and_its_cut_generates(rows):
    model = llama()
    before = copy.deepcopy(model.state_dict())
    cut = slicegpt.cut(model, rows, next_token_loss, parameters=size(model) // 2).eval()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    told = {"max_new_tokens": 6, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    assert torch.equal(cut.generate(rows[:1], use_cache=True, **told), cut.generate(rows[:1], use_cache=False, **told))


@pytest.mark.parametrize(
    ("options", "got"), [({"tie_word_embeddings": True}, "tied to the embedding"), ({"mlp_bias": True}, "a layer with a bias")]
)
def test_slicegpt_refuses_what_its_formulas_are_not_for(options, got, rows):
    with pytest.raises(InputError, match=f"(?s)not a network of Llama's form.*{got}"):
        slicegpt.cut(llama(**options), rows, next_token_loss, parameters=1000)
    with pytest.raises(InputError, match="not a network of Llama's form"):
        slicegpt.norms_of(nn.Linear(2, 2))


def test_blocks_lose_the_same_share_and_each_keeps_its_most_important_group():
    generator = np.random.default_rng(0)
    family_of = np.repeat([0, 1, 2], [5, 10, 40])
    scores = generator.random(55)
    order = llm_pruner.block_order(scores, family_of, kept={0})
    assert not set(order.tolist()) & set(range(5))
    assert len(order) == 9 + 39
    for end in range(len(order) + 1):
        gone = np.bincount(family_of[order[:end]], minlength=3) / np.array([5, 10, 40])
        assert abs(gone[1] - gone[2]) <= 1 / 10
    for family in (1, 2):
        members = np.flatnonzero(family_of == family)
        assert members[scores[members].argmax()] not in order
        assert np.all(np.diff(scores[[g for g in order if family_of[g] == family]]) >= 0)


@pytest.mark.slow
def test_llm_pruners_importance_is_its_formula_on_the_packages_groups(rows):
    model = llama()
    gradients = llm_pruner.gradients_of(model, rows, next_token_loss, batch=5)
    geta = GETA(copy.deepcopy(model), rows[:1], quantize=None)
    found = llm_pruner.importance(geta.groups.table, dict(model.named_parameters()), gradients)
    loss = next_token_loss(model, rows)
    loss.backward()
    named = dict(model.named_parameters())
    for index in (0, 17, 25, len(geta.groups) - 1):
        parts = [(named[name], axis, torch.tensor(indices)) for name, axis, indices in geta.groups[index].slices]
        by_hand = sum(float((p * p.grad).detach().index_select(axis, rows_).abs().sum()) for p, axis, rows_ in parts)
        # float32 gradients, summed in another order of batches
        assert found[index] == pytest.approx(by_hand, rel=1e-4)


@pytest.mark.slow
def test_llm_pruners_cut_is_what_construct_subnet_makes_of_its_groups(rows):
    model = llama()
    before = copy.deepcopy(model.state_dict())
    wanted = int(0.7 * size(model))
    cut = llm_pruner.cut(model, rows, next_token_loss, parameters=wanted)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert size(cut) <= wanted
    assert cut.model.embed_tokens.weight.shape == (VOCABULARY, WIDTH), "the stream stays whole"
    geta = GETA(copy.deepcopy(model), rows[:1], quantize=None)
    table = geta.groups.table
    stream = llm_pruner.residual_families(table)
    assert {geta.families[f].module_path for f in stream} == {"model.embed_tokens"}
    scores = llm_pruner.importance(table, dict(model.named_parameters()), llm_pruner.gradients_of(model, rows, next_token_loss))
    order = llm_pruner.block_order(scores, np.asarray(table.family_of), stream)
    stay = sum(layer.mlp.up_proj.out_features + layer.self_attn.q_proj.out_features // 4 for layer in cut.model.layers)
    geta.mask([int(group) for group in order[: len(geta.groups) - WIDTH - stay]])
    # the masked network in the dense one's shapes: other kernels, so other rounding
    assert_same(logits(cut, rows), logits(geta.model, rows))


@pytest.mark.slow
def test_magnitude_cut_and_rounding_keep_to_size_and_grid(rows):
    model = llama()
    cut = language.magnitude_cut(model, rows, next_token_loss, parameters=size(model) // 2)
    assert size(cut) <= size(model) // 2
    before = copy.deepcopy(cut.state_dict())
    found = language.rounded(cut, rows, 3)
    assert all(torch.equal(value, before[name]) for name, value in cut.state_dict().items())
    matrices = [parameter for parameter in found.parameters() if parameter.ndim == 2]
    assert matrices
    assert all(len(parameter.unique()) <= 2**3 for parameter in matrices)
    with pytest.raises(BudgetError, match="cannot be reached"):
        language.magnitude_cut(model, rows, next_token_loss, parameters=10)
