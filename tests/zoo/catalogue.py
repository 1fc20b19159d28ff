"""The model zoo: tiny random-weight nets, offline and deterministic, on which the laws of this package are tested.

Comes in: nothing. Goes out: ``ZOO``, name -> :class:`Entry`. Biases, norm parameters and running statistics are random, so a net does
not pass a law because a bias happened to be zero. Nets are small: batch 2 takes a few milliseconds.
"""

from __future__ import annotations

import warnings
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

import geta_nb as gt
from tests.extent import WHOLE
from tests.zoo import computed_nets as zoo_computed
from tests.zoo import frozen_nets as zoo_frozen
from tests.zoo import more as zoo_more
from tests.zoo import nets
from tests.zoo import small_images as zoo_small_images
from tests.zoo import small_kinds as zoo_small_kinds
from tests.zoo import traps as zoo_traps
from tests.zoo import vision as zoo_vision

Inputs = tuple[Tensor, ...]


def _double(x: Tensor) -> Tensor:
    return x.double() if x.is_floating_point() else x


@dataclass(frozen=True)
class Entry:
    """One net of the zoo.

    Args:
        name: key in ``ZOO``.
        build: () -> a fresh module in eval mode, the same weights at every call.
        inputs: batch size -> positional example inputs, the same at every call.
        kwargs: batch size -> keyword example inputs.
    """

    name: str
    build: Callable[[], nn.Module]
    inputs: Callable[[int], Inputs]
    kwargs: Callable[[int], dict[str, Any]]

    def double(self, batch: int = 2) -> tuple[nn.Module, Inputs, dict[str, Any]]:
        """Return the net and its example inputs, floating tensors in float64."""
        args, kwargs = tree_map_only(Tensor, _double, (self.inputs(batch), self.kwargs(batch)))
        return self.build().double(), args, kwargs


ZOO: dict[str, Entry] = {}


def randomise(model: nn.Module) -> nn.Module:
    """Give every parameter a value that matters: matrices of unit gain, biases and norm parameters moved off 0 and 1, random statistics."""
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn_like(p) / max(p[0].numel(), 1) ** 0.5) if p.ndim > 1 else p.add_(0.3 * torch.randn_like(p))
        for module in model.modules():
            if isinstance(getattr(module, "running_mean", None), Tensor):
                module.running_mean.normal_(0, 0.3)
                module.running_var.uniform_(0.5, 1.5)
    return model


def _seeded(name: str, make: Callable[[], Any]) -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(zlib.crc32(name.encode()))
        return make()


def add(
    name: str,
    make: Callable[[], nn.Module],
    *shapes: tuple[int, ...],
    kwargs: Callable[[int], dict[str, Any]] | None = None,
    vocabulary: int = 0,
) -> None:
    """Register a net; ``shapes`` are its inputs' without the batch axis, token ids below ``vocabulary`` if that is not 0."""

    def tensors(batch: int) -> Inputs:
        draw = (lambda s: torch.randint(1, vocabulary, s)) if vocabulary else torch.randn
        return tuple(draw((batch, *shape)) for shape in shapes)

    ZOO[name] = Entry(
        name,
        lambda: _seeded(name, lambda: randomise(make()).eval()),
        lambda batch: _seeded(name + " inputs", lambda: tensors(batch)),
        lambda batch: _seeded(name + " kwargs", lambda: kwargs(batch) if kwargs else {}),
    )


# Convolutional classics
IMAGE = (3, 16, 16)
add("vgg7", nets.vgg7, IMAGE)
add("resnet20", lambda: nets.ResNet([nets.basic] * 9, [8] * 3 + [16] * 3 + [32] * 3, stem=8), IMAGE)
add("resnet_basic", lambda: nets.ResNet([nets.basic] * 3, [8, 8, 16], stem=8), IMAGE)
add("resnet_bottleneck", lambda: nets.ResNet([nets.bottleneck] * 3, [16, 16, 32], stem=8), IMAGE)
add("resnet_pad_shortcut", lambda: nets.ResNet([nets.basic] * 3, [8, 8, 16], stem=8, shortcut="pad"), IMAGE)
add("resnext", lambda: nets.ResNet([lambda i, o, s: nets.bottleneck(i, o, s, groups=4)] * 2, [16, 32], stem=8), IMAGE)
add("densenet", lambda: nets.DenseNet(8, 4, 3), IMAGE)
add("mobilenet_v2", lambda: nets.mobilenet_v2(8), IMAGE)
add("unet", lambda: nets.UNet(6), IMAGE)
add("shufflenet", lambda: nets.Shuffle(8), (3, 8, 8))
add("squeeze_excite", lambda: nets.SqueezeExcite(8), (3, 8, 8))
add("flatten_linear", lambda: nets.plain(3, 6, 4, head=nn.Sequential(nn.Flatten(), nn.Linear(4 * 8 * 8, 5))), (3, 8, 8))

# Norms, groups, other convolutions
for _name, _norm in {
    "batch_norm": nn.BatchNorm2d,
    "batch_norm_plain": lambda c: nn.BatchNorm2d(c, affine=False),
    "group_norm": lambda c: nn.GroupNorm(4, c),
    "layer_norm_like": lambda c: nn.GroupNorm(1, c),
    "instance_norm": lambda c: nn.InstanceNorm2d(c, affine=True),
    "instance_norm_plain": nn.InstanceNorm2d,
}.items():
    add(
        _name,
        lambda n=_norm: nn.Sequential(nn.Conv2d(3, 8, 3), n(8), nn.ReLU(), nn.Conv2d(8, 6, 3), nn.ReLU(), nn.Conv2d(6, 4, 1)),
        (3, 8, 8),
    )
add(
    "grouped_conv",
    lambda: nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 16, 3, groups=4), nn.ReLU(), nn.Conv2d(16, 4, 1)),
    (3, 8, 8),
)
add(
    "depthwise_multiplier",
    lambda: nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 12, 3, groups=6), nn.ReLU(), nn.Conv2d(12, 4, 1)),
    (3, 8, 8),
)
add(
    "conv1d",
    lambda: nn.Sequential(
        nn.Conv1d(4, 8, 3), nn.BatchNorm1d(8), nn.ReLU(), nn.MaxPool1d(2), nn.Conv1d(8, 6, 3), nn.GELU(), nn.Flatten(), nn.Linear(30, 3)
    ),
    (4, 16),
)
add(
    "conv3d",
    lambda: nn.Sequential(
        nn.Conv3d(2, 6, 3), nn.BatchNorm3d(6), nn.ReLU(), nn.Conv3d(6, 4, 2), nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(4, 3)
    ),
    (2, 6, 6, 6),
)

# Sharing
add("shared_conv", nets.SharedConv, (3, 8, 8))
add("tied_linear", nets.TiedLinear, (6,))
add("tied_autoencoder", nets.TiedAutoencoder, (12,))

# MLPs, with and without what breaks "zero means absent"
add("mlp", lambda: nets.mlp([8, 16, 12, 4], nn.ReLU()), (8,))
add(
    "mlp_gelu_norm",
    lambda: nn.Sequential(nn.Linear(8, 16), nn.LayerNorm(16), nn.GELU(), nn.Linear(16, 12), nn.SiLU(), nn.Linear(12, 4)),
    (5, 8),
)
add("mlp_sigmoid", lambda: nets.mlp([8, 16, 12, 4], nn.Sigmoid()), (8,))
add("mlp_softplus", lambda: nets.mlp([8, 16, 12, 4], nn.Softplus()), (8,))
add("mlp_constant", lambda: nets.mlp([8, 16, 12, 4], nets.Plus(0.5)), (8,))
add("glu_chunk", lambda: nets.Gated(8, 12, 4), (8,))
add("glu", lambda: nn.Sequential(nn.Linear(8, 24), nn.GLU(), nn.Linear(12, 4)), (8,))
add("bare_parameter", lambda: nets.BareParameter(8, 12, 4), (8,))
add("many_inputs", nets.ManyInputs, (8,), (6,), kwargs=lambda b: {"scale": torch.rand(b, 1) + 0.5})

# Attention and recurrence
add("attention", lambda: nets.Attention(16, 4), (5, 16))
add("multihead_attention", lambda: nets.MultiheadBlock(16, 4), (5, 16))
add("encoder_layer", lambda: nn.TransformerEncoderLayer(16, 4, 24, dropout=0.0, batch_first=True), (5, 16))
add(
    "encoder_layer_pre_norm",
    lambda: nn.TransformerEncoderLayer(16, 4, 24, dropout=0.0, batch_first=True, norm_first=True, activation=F.gelu),
    (5, 16),
)
add("lstm", nets.Recurrent, (5, 6))


def hugging_face(model_class: str, config_class: str, **options: Any) -> nn.Module:
    """Build a transformers net from a configuration; imported here because the import takes seconds."""
    with warnings.catch_warnings():
        # the import, not the net: third-party modules touched by transformers' lazy import deprecate their own names
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        warnings.filterwarnings("ignore", category=FutureWarning)
        import transformers

        return getattr(transformers, model_class)(getattr(transformers, config_class)(**options))


_DECODER: dict[str, Any] = {
    "vocab_size": 90,
    "hidden_size": 32,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 24,
    "use_cache": False,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": None,
}
_HUGGING_FACE: dict[str, tuple[str, str, dict[str, Any]]] = {
    "bert": ("BertForSequenceClassification", "BertConfig", _DECODER | {"num_labels": 3, "pad_token_id": 0}),
    "vit": (
        "ViTForImageClassification",
        "ViTConfig",
        {
            "image_size": 16,
            "patch_size": 8,
            "hidden_size": 32,
            "intermediate_size": 40,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_labels": 3,
        },
    ),
    "gpt2": (
        "GPT2LMHeadModel",
        "GPT2Config",
        {
            "vocab_size": 90,
            "n_embd": 32,
            "n_layer": 2,
            "n_head": 4,
            "n_positions": 24,
            "use_cache": False,
            "bos_token_id": 1,
            "eos_token_id": 2,
        },
    ),
    "llama": ("LlamaForCausalLM", "LlamaConfig", _DECODER | {"num_key_value_heads": 2}),
    "phi": ("PhiForCausalLM", "PhiConfig", _DECODER | {"partial_rotary_factor": 0.5}),
    "t5": (
        "T5ForConditionalGeneration",
        "T5Config",
        {
            "vocab_size": 90,
            "d_model": 32,
            "d_kv": 8,
            "d_ff": 40,
            "num_layers": 2,
            "num_heads": 4,
            "use_cache": False,
            "decoder_start_token_id": 0,
        },
    ),
}


def _language_kwargs(batch: int) -> dict[str, Any]:
    mask = torch.ones(batch, 7, dtype=torch.long)
    mask[-1, 5:] = 0
    return {"attention_mask": mask}


def _add_hugging_face(name: str, attention: str) -> None:
    model, config, options = _HUGGING_FACE[name]
    kwargs = {
        "bert": _language_kwargs,
        "t5": lambda batch: {"decoder_input_ids": torch.randint(1, 90, (batch, 4))},
    }.get(name)
    add(
        f"{name}_{attention}",
        lambda: hugging_face(model, config, attn_implementation=attention, **options),
        (3, 16, 16) if name == "vit" else (7,),
        kwargs=kwargs,
        vocabulary=0 if name == "vit" else 90,
    )


for _name in _HUGGING_FACE:
    for _attention in ("eager",) if _name == "t5" else ("eager", "sdpa"):
        _add_hugging_face(_name, _attention)

CORE = frozenset(ZOO)  # the nets above; those of the other files are more of the same kinds and traps

import tests.zoo.text  # noqa: E402, F401  (it registers its nets here)

zoo_vision.register(add, hugging_face)
zoo_traps.register(add)
zoo_frozen.register(add)
zoo_computed.register(add)
zoo_more.register(add)
zoo_small_images.register(add)
zoo_small_kinds.register(add)


def _add_centred(entry: Entry) -> None:
    """The same net after ``gt.center``, with weights that are no longer without a mean: its norms are what they are for good."""

    def build() -> nn.Module:
        model = entry.build()
        gt.center(model, entry.inputs(2), example_kwargs=entry.kwargs(2))
        return _seeded(entry.name, lambda: randomise(model))

    ZOO[f"{entry.name}_centred"] = Entry(f"{entry.name}_centred", build, entry.inputs, entry.kwargs)


for _name in ("vit_sdpa", "gpt2_sdpa", "phi_sdpa", "opt", "nemotron", "dinov2", "beit", "swin", "whisper", "segformer"):
    _add_centred(ZOO[_name])

SIBLINGS = {
    "rt_detr": "detr", "conditional_detr": "detr", "owl_vit": "clip", "hubert": "sew", "wav2vec2": "sew", "wavlm": "sew", "swinv2": "swin",
    "hf_mobilenet_v2": "mobilenet_v2", "beit_shared_bias": "beit", "beit_centred": "segformer_centred", "swin_centred": "segformer_centred",
    "encoder_decoder": "whisper", "bamba": "jamba", "mt5": "t5_eager", "siglip": "clip",
}  # fmt: skip
"""Slow nets to trace (10 to 75 s) that have a near relation -> that relation, which ``make test`` asks; ``make zoo`` asks all."""
TESTED = [name for name in ZOO if WHOLE or name not in SIBLINGS]
