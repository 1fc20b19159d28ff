"""ResNet50 and the vision transformers of the paper, at their published sizes, or small enough for a CPU.

In: a name, a size, the side of the images, the number of classes. Out: a network with random weights, most of them by ``transformers``.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from geta_nb.errors import ConfigError
from geta_nb.pipelines.hf_nets import Options, build, check_size
from geta_nb.pipelines.simple_vit import SimpleViT

_SMALL_VIT = {"patch_size": 8, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
_TINY_VIT = {"patch_size": 16, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 4}
_WIDE = {"num_attention_heads": 6, "hidden_size": 384, "intermediate_size": 1536}
_PYRAMID = {"strides": [4, 2, 2, 2], "patch_sizes": [7, 3, 3, 3], "num_attention_heads": [1, 2, 4, 4], "mlp_ratios": [2, 2, 2, 2]}

NETS: Mapping[str, tuple[str, str, Mapping[str, Options]]] = {
    "ViT-Small": ("ViTForImageClassification", "ViTConfig", {"full": _WIDE, "small": _SMALL_VIT, "tiny": _TINY_VIT}),
    "DeiT-Tiny": (
        "DeiTForImageClassification",
        "DeiTConfig",
        {"full": {"hidden_size": 192, "num_attention_heads": 3, "intermediate_size": 768}, "small": _SMALL_VIT, "tiny": _TINY_VIT},
    ),
    "Swin-Tiny": (
        "SwinForImageClassification",
        "SwinConfig",
        {
            "full": {},  # the published Swin-T: 28M parameters
            "small": {"patch_size": 4, "embed_dim": 32, "depths": [1, 1], "num_heads": [2, 4], "window_size": 4, "mlp_ratio": 2.0},
            "tiny": {"patch_size": 8, "embed_dim": 16, "depths": [1, 1], "num_heads": [2, 4], "window_size": 4, "mlp_ratio": 2.0},
        },
    ),
    "PVTv2": (
        "PvtV2ForImageClassification",
        "PvtV2Config",
        {
            "full": {},  # PVTv2-B0: 3.7M parameters
            "small": _PYRAMID | {"depths": [1, 1, 1, 1], "hidden_sizes": [16, 32, 64, 64], "sr_ratios": [2, 2, 1, 1]},
            "tiny": _PYRAMID | {"depths": [1, 1, 1, 1], "hidden_sizes": [8, 16, 16, 16], "sr_ratios": [2, 2, 1, 1]},
        },
    ),
    "ResNet50": (
        "ResNetForImageClassification",
        "ResNetConfig",
        {
            "full": {},  # 25.6M parameters
            "small": {"embedding_size": 16, "hidden_sizes": [32, 64, 128, 256], "depths": [1, 1, 2, 1]},
            "tiny": {"embedding_size": 8, "hidden_sizes": [16, 32], "depths": [1, 1]},
        },
    ),
}
_SIMPLE: Mapping[str, Mapping[str, int]] = {
    "full": {"patch_size": 16, "width": 384, "depth": 12, "heads": 6},
    "small": {"patch_size": 8, "width": 64, "depth": 2, "heads": 4},
    "tiny": {"patch_size": 16, "width": 32, "depth": 1, "heads": 4},
}
TRANSFORMERS = ("ViT-Small", "DeiT-Tiny", "Swin-Tiny", "PVTv2", "SimpleViT")


def vision_net(name: str, size: str, *, image_size: int, classes: int, seed: int = 0) -> nn.Module:
    """Return a classifier of images [B, 3, image_size, image_size].

    Args:
        name: of :data:`NETS`, or ``"SimpleViT"``.
        size: ``"full"``, ``"small"`` or ``"tiny"``.

    Raises:
        ConfigError: no such network or size.
    """
    check_size(size)
    if name == "SimpleViT":
        torch.manual_seed(seed)
        return SimpleViT(image_size=image_size, classes=classes, **_SIMPLE[size])
    if name not in NETS:
        raise ConfigError("vision_net: no such network.", expected=", ".join((*NETS, "SimpleViT")), got=repr(name))
    model, config, sizes = NETS[name]
    sided = {} if name == "ResNet50" else {"image_size": image_size}
    return build(model, config, {**sizes[size], **sided, "num_labels": classes}, seed=seed)
