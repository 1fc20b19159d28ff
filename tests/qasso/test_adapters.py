"""LoRA adapters of ``peft``: part of the weight while they train, pruned and quantized with it, and merged before the cut."""

from __future__ import annotations

import copy
import warnings

import pytest
import torch
from torch import nn

import geta_nb as gt
from geta_nb.errors import ConfigError, GetaWarning, InputError, NonFiniteError
from geta_nb.quantizers import adopted_in, parameter_tensors

peft = pytest.importorskip("peft", reason="peft is not installed")

STEPS = 40


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second, self.last = nn.Linear(8, 16), nn.Linear(16, 16), nn.Linear(16, 3)

    def forward(self, x):
        return self.last(torch.relu(self.second(torch.relu(self.first(x)))))


class Pictures(nn.Module):
    """A convolution, a table, and a matrix that stands the other way round (GPT-2's)."""

    def __init__(self):
        super().__init__()
        turned = pytest.importorskip("transformers.pytorch_utils").Conv1D
        self.conv, self.table, self.turned, self.last = nn.Conv2d(3, 8, 3), nn.Embedding(5, 8), turned(12, 8), nn.Linear(12, 3)

    def forward(self, x, ids):
        return self.last(torch.relu(self.turned(torch.relu(self.conv(x)).mean((2, 3)) + self.table(ids))))


def data():
    x, y = torch.randn(64, 8), torch.arange(64) % 3
    x[torch.arange(64), y] += 2
    return x, y


def config(*targets, **options):
    return peft.LoraConfig(**{"r": 4, "target_modules": list(targets) or ["first", "second"], **options})


def train(model, optimizer, x, y, steps):
    for _ in range(steps):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    return nn.functional.cross_entropy(model(x), y).item()


def run(geta, **options):
    budget = options.pop("budget", gt.Budget(0.5))
    return geta.qasso(torch.optim.AdamW, lr=1e-2, budget=budget, schedule=gt.Schedule.for_steps(STEPS), **options)


def adapted(quantize=gt.QuantConfig(), net=Net, **options):  # noqa: B008 - frozen
    """Adapters first, then GETA."""
    model = peft.get_peft_model(net(), config(**options))
    return model, gt.GETA(model.get_base_model(), data()[0][:2], quantize=quantize)


def test_names_and_groups_are_the_plain_models_whichever_came_first():
    torch.manual_seed(3)
    plain = gt.GETA(Net(), torch.zeros(2, 8))
    for first in ("peft", "geta"):
        torch.manual_seed(3)
        if first == "peft":
            _, geta = adapted()
        else:
            geta = gt.GETA(Net(), torch.zeros(2, 8))
            peft.get_peft_model(geta.model, config())
            assert geta.adopt_adapters() == ("first.weight", "second.weight")
        assert list(parameter_tensors(geta.model)) == list(parameter_tensors(plain.model))
        assert list(geta.groups) == list(plain.groups) and geta.protected == plain.protected
        assert geta.bit_widths() == plain.bit_widths() and set(adopted_in(geta.model)) == {"first.weight", "second.weight"}
        assert geta.qadg.summary() == plain.qadg.summary()


@pytest.mark.parametrize("quantize", [gt.QuantConfig(), gt.QuantConfig(granularity="channel"), gt.QuantConfig(activations=True), None])
def test_recovery_keeps_groups_and_codes_and_the_merge_changes_nothing(quantize):
    x, y = data()
    geta = gt.GETA(Net(), x[:2], quantize=quantize)
    geta.calibrate([x])
    optimizer = run(geta)
    train(geta.model, optimizer, x, y, STEPS + 2)
    gone, bits = ~optimizer.group_mask, geta.bit_widths()
    numbers = {name: p.detach().clone() for name, p in geta.model.named_parameters() if "parametrizations" in name and "orig" not in name}
    model = peft.get_peft_model(geta.model, config())
    geta.adopt_adapters()
    before = nn.functional.cross_entropy(model(x), y).item()
    after = train(model, torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2), x, y, 60)
    assert after < before
    found = model(x).detach()
    merged = model.merge_and_unload()
    assert merged is geta.model and isinstance(merged.first, nn.Linear)
    assert torch.equal(merged(x), found)
    assert geta.group_sparsity() == gone.mean() and geta.bit_widths() == bits
    for name, number in numbers.items():  # the grid is the one that the run had fixed
        assert torch.equal(geta.model.get_parameter(name), number), name
    subnet = geta.construct_subnet()
    assert type(subnet) is Net and geta.report(subnet).to_dict()["group_sparsity"] == gone.mean()
    # a sum over fewer terms in another order: float32 and sums of 16
    torch.testing.assert_close(subnet(x), found, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("quantize", [gt.QuantConfig(), gt.QuantConfig(activations=True), None])
@pytest.mark.parametrize("saliency", ["fisher", "taylor"])
def test_a_run_that_trains_adapters_alone_ends_with_exactly_k_zero_groups_and_bits_in_range(quantize, saliency):
    x, y = data()
    model, geta = adapted(quantize)
    geta.calibrate([x])
    before = {name: p.detach().clone() for name, p in parameter_tensors(geta.model).items()}
    optimizer = run(geta, saliency=saliency)
    first = nn.functional.cross_entropy(model(x), y).item()
    assert train(model, optimizer, x, y, STEPS) < first
    assert optimizer.stage == "cool-down" and geta.group_sparsity() == 0.5 == (~optimizer.group_mask).mean()
    widths = {**geta.bit_widths(), **geta.activation_bit_widths()}
    assert all(isinstance(bits, int) and 4 <= bits <= 16 for bits in widths.values())
    for name, p in parameter_tensors(geta.model).items():  # what lives is as it was: all that was learned is in the adapters
        assert bool(((p == before[name]) | (p == 0)).all()), name
    found = model(x).detach()
    assert torch.equal(model.merge_and_unload()(x), found) and geta.group_sparsity() == 0.5
    torch.testing.assert_close(geta.construct_subnet()(x), found, rtol=1e-4, atol=1e-5)


def test_an_adapters_gradient_that_is_not_finite_is_told_by_its_shape():
    x, y = data()
    model, geta = adapted()
    optimizer = run(geta)
    train(model, optimizer, x, y, 1)
    model.get_parameter("base_model.model.second.lora_A.default.weight").grad[1, 2] = torch.nan
    with pytest.raises(NonFiniteError, match=r"a parameter \[4, 16\] that came in later, step 1"):
        optimizer.step()


def test_groups_are_judged_by_the_gradient_of_the_merged_weight():
    x, y = data()
    model, geta = adapted()
    geta.model.first.lora_B["default"].weight.data.normal_()
    optimizer = run(geta)
    for part in range(2):  # two backward passes, one step
        nn.functional.cross_entropy(model(x[part::2]), y[part::2]).div(2).backward()
    found = optimizer.pruner.members.products().per_group
    twin = copy.deepcopy(geta.model)
    for one in adopted_in(twin).values():
        one.merge()
    twin.requires_grad_(True)
    weights = {name: p for name, p in parameter_tensors(twin).items() if name in ("first.weight", "second.weight")}
    for part in range(2):
        nn.functional.cross_entropy(twin(x[part::2]), y[part::2]).div(2).backward()
    rows = torch.cat([(p * p.grad).sum(1) for p in weights.values()])
    expected = torch.stack([rows[group.index] for group in geta.groups])  # by hand: one row a group, in order of layers
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-7)  # sums of 16 products in float32


def test_what_fades_fades_in_the_terms_as_in_the_weight_and_what_is_gone_adds_nothing():
    x, y = data()
    model, geta = adapted()
    optimizer = run(geta)
    fading = False
    for _ in range(STEPS):
        train(model, optimizer, x, y, 1)
        for name, one in adopted_in(geta.model).items():
            weight, factor = one.weight.detach().abs().sum(1), one.factors()[0]
            fading = fading or bool(((factor > 0) & (factor < 1)).any())
            assert torch.equal(weight == 0, factor == 0), name
            assert bool((one()[factor == 0] == 0).all())
    assert fading


def test_a_run_that_stops_in_the_middle_of_fading_goes_on_to_the_same_bits(tmp_path):
    def begin():
        torch.manual_seed(1)
        return adapted()

    x, y = data()
    model, geta = begin()
    optimizer = run(geta)
    train(model, optimizer, x, y, 9)
    assert bool(optimizer.pruner.redundant.any())
    geta.save_checkpoint(tmp_path / "run")
    train(model, optimizer, x, y, STEPS - 9)
    again, _ = begin()
    resumed = gt.GETA.resume(tmp_path / "run", again.get_base_model(), x[:2])
    train(again, run(resumed), x, y, STEPS - 9)
    for name, value in geta.model.state_dict().items():
        assert torch.equal(resumed.model.state_dict()[name], value), name


def test_convolutions_tables_and_turned_matrices_have_adapters_too():
    x, ids, y = torch.randn(12, 3, 6, 6), torch.arange(12) % 5, torch.arange(12) % 3
    model = peft.get_peft_model(Pictures(), config("conv", "table", "turned", fan_in_fan_out=True))
    geta = gt.GETA(model.get_base_model(), (x[:2], ids[:2]))
    optimizer = run(geta)
    for _ in range(STEPS):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x, ids), y).backward()
        optimizer.step()
    found = model(x, ids).detach()
    assert geta.group_sparsity() == 0.5 and set(adopted_in(geta.model)) == {"conv.weight", "table.weight", "turned.weight"}
    assert torch.equal(model.merge_and_unload()(x, ids), found) and geta.group_sparsity() == 0.5
    torch.testing.assert_close(geta.construct_subnet()(x, ids), found, rtol=1e-4, atol=1e-5)


def test_merging_back_and_forth_and_switching_off_are_what_peft_says():
    x, y = data()
    model, geta = adapted()
    with model.disable_adapter():
        plain = model(x)
    terms = [p for name, p in model.named_parameters() if "lora_" in name]
    train(model, torch.optim.SGD(terms, lr=0.5), x, y, 10)
    found = model(x)
    assert not torch.allclose(found, plain, atol=0.1)
    with model.disable_adapter():
        assert torch.equal(model(x), plain)
    model.merge_adapter()
    assert torch.equal(model(x), found)
    model.unmerge_adapter()
    # the sum of two numbers minus one of them is not always the other: one rounding, which a quantizer of 16 bits may pass on
    torch.testing.assert_close(model(x), found, rtol=1e-3, atol=1e-3)
    model.merge_adapter(safe_merge=True)
    with pytest.warns(UserWarning, match="already merged"):
        model.merge_adapter()
    model.unmerge_adapter()
    assert torch.isfinite(model.unload()(x)).all() and geta.construct_subnet() is not None


def test_a_copy_of_the_model_has_adapters_of_its_own():
    x, y = data()
    model, geta = adapted()
    twin = copy.deepcopy(geta)
    kept = twin.model(x)
    train(model, run(geta), x, y, 3)
    assert torch.equal(twin.model(x), kept) and not torch.equal(geta.model(x), kept)
    assert all(one.layer is twin.model.get_submodule(one.path) for one in adopted_in(twin.model).values())
    averaged = torch.optim.swa_utils.AveragedModel(geta.model)
    optimizer = run(geta)
    train(model, optimizer, x, y, STEPS)
    optimizer.hold(averaged)
    held = adopted_in(averaged.module)
    assert all(torch.equal(one.factors()[0] == 0, held[name].factors()[0] == 0) for name, one in adopted_in(geta.model).items())


def test_masking_and_loss_of_layers_without_adapters_are_as_ever():
    x, y = data()
    model, geta = adapted(r=2)
    geta.mask([0, 1])
    geta.model.first.lora_B["default"].weight.data.normal_()
    assert geta.group_sparsity() == 2 / 32 and not bool(adopted_in(geta.model)["first.weight"]()[[0, 1]].any())
    model = peft.get_peft_model(Net(), config("first"))
    geta = gt.GETA(model.get_base_model(), x[:2])
    with pytest.warns(GetaWarning, match="no gradient"):  # nothing of the second layer trains
        train(model, run(geta), x, y, STEPS)
    model.merge_and_unload()
    assert geta.group_sparsity() == 0.5


UNFIT = {
    "dropout": (lambda: config(lora_dropout=0.1), r"lora_dropout=0\.0"),
    "DoRA": (lambda: config(use_dora=True), "use_dora"),
    "a bias": (lambda: config(lora_bias=True), "lora_bias=False"),
    "a copied layer": (lambda: config(modules_to_save=["last"]), r"(?s)at: +last.*requires_grad_\(True\)"),
    "another method": (lambda: peft.LoHaConfig(r=2, target_modules=["first"]), r"(?s)at: +first.*target_modules"),
}


@pytest.mark.parametrize("kind", UNFIT)
def test_what_is_no_part_of_a_weight_is_refused_by_name_and_left_alone(kind):
    make, words = UNFIT[kind]
    x, _ = data()
    model = peft.get_peft_model(Net(), make())
    before = set(dict(model.named_modules()))
    with pytest.raises(ConfigError, match=words):
        gt.GETA(model.get_base_model(), x[:2])
    assert set(dict(model.named_modules())) == before and not adopted_in(model)
    geta = gt.GETA(Net(), x[:2])
    peft.get_peft_model(geta.model, make())
    with pytest.raises(ConfigError, match=words):
        geta.adopt_adapters()


def test_shared_weights_starts_that_change_the_weight_and_wrappers_are_refused():
    x, y = data()
    with pytest.raises(ConfigError, match=r"get_base_model\(\)"):
        gt.GETA(peft.get_peft_model(Net(), config()), x[:2])
    geta = gt.GETA(Net(), x[:2])
    peft.get_peft_model(geta.model, config(init_lora_weights="pissa"))
    with pytest.raises(ConfigError, match=r"(?s)pissa.*after get_peft_model"):
        geta.adopt_adapters()
    model, geta = adapted(init_lora_weights="pissa")  # in this order nothing is lost
    assert train(model, run(geta), x, y, STEPS) < 1.1
    tied = Net()
    tied.second.weight = nn.Parameter(torch.randn(16, 16))
    tied.last = nn.Linear(16, 16)
    tied.last.weight = tied.second.weight
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # peft has its own words for it
        shared = peft.get_peft_model(tied, config("second")).get_base_model()
    with pytest.raises(ConfigError, match="two layers share"):
        gt.GETA(shared, x[:2])


def test_what_adapters_have_to_be_merged_for_or_cannot_have_says_so():
    x, y = data()
    _, geta = adapted()
    with pytest.raises(ConfigError, match=r"(?s)construct_subnet.*merge_and_unload\(\)"):
        geta.construct_subnet()
    with pytest.raises(ConfigError, match=r"(?s)sensitivity.*merge_and_unload\(\)"):
        geta.sensitivity([x], lambda net, batch: net(batch).mean())
    with pytest.raises(ConfigError, match="paper"):
        run(geta, rules="paper")
    with pytest.raises(InputError, match="set_adapter"):
        geta.model.first(x, adapter_names=["default"] * 64)
    geta = gt.GETA(Net(), x[:2])
    train(geta.model, run(geta), x, y, 5)
    peft.get_peft_model(geta.model, config())
    with pytest.raises(ConfigError, match="in the middle of a run"):
        geta.adopt_adapters()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")  # peft asks transformers for it
@pytest.mark.parametrize("order", ["recovery", "adapters alone"])
def test_a_small_llama_is_pruned_quantized_adapted_merged_and_cut_and_writes(order):
    """From end to end on text: heads, feed-forward units and the residual width, grouped queries, 4 bits."""
    hf = pytest.importorskip("transformers")
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
    net = hf.LlamaForCausalLM(hf.LlamaConfig(vocab_size=64, **sizes)).eval()
    text = (torch.arange(16 * 24).view(16, 24) * 7 + torch.arange(16)[:, None]) % 64  # each token says which one follows

    def fit(model, optimizer, steps):
        for _ in range(steps):
            optimizer.zero_grad()
            loss = model(input_ids=text, labels=text).loss
            loss.backward()
            optimizer.step()
        return float(loss.detach())

    fit(net, torch.optim.AdamW(net.parameters(), lr=1e-2), 60)
    lora = peft.LoraConfig(r=8, target_modules="all-linear", task_type="CAUSAL_LM")
    options = {"lr": 5e-3, "budget": gt.Budget(0.3, bit_range=(4, 16)), "schedule": gt.Schedule.for_steps(40)}
    if order == "recovery":
        geta = gt.GETA(net, (), example_kwargs={"input_ids": text[:2], "use_cache": False})
        optimizer = geta.qasso(torch.optim.AdamW, **options)
        before = fit(net, optimizer, 42)
        model = peft.get_peft_model(geta.model, lora)
        assert len(geta.adopt_adapters()) == 14
        after = fit(model, torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=5e-3), 60)
    else:
        model = peft.get_peft_model(net, lora)
        geta = gt.GETA(model.get_base_model(), (), example_kwargs={"input_ids": text[:2], "use_cache": False})
        optimizer = geta.qasso(torch.optim.AdamW, **options)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", GetaWarning)  # the embedding and the head have no adapters
            before = fit(model, optimizer, 42)
        after = fit(model, optimizer, 60)
    assert after < before
    gone = int((~optimizer.group_mask).sum())
    assert gone == optimizer.n_redundant == round(0.3 * len(geta.groups))
    with torch.no_grad():
        found = model(input_ids=text).logits
        merged = model.merge_and_unload()
        assert torch.equal(merged(input_ids=text).logits, found)
        assert geta.group_sparsity() == gone / len(geta.groups) and set(geta.bit_widths().values()) <= set(range(4, 17))
        subnet = geta.construct_subnet().eval()
        torch.testing.assert_close(subnet(input_ids=text).logits, found, rtol=1e-3, atol=1e-3)  # float32, through four norms
        written = [net.generate(input_ids=text[:2, :4], max_new_tokens=8, do_sample=False) for net in (merged, subnet)]
    assert torch.equal(*written)
    assert sum(p.numel() for p in subnet.parameters()) < sum(p.numel() for p in parameter_tensors(merged).values())
