"""Networks that the laws of sharded training are tried on, and how each is sharded. In: a name. Out: a net in float64, batches, a loss.

Rows that no number of ranks divides, rows fewer than ranks (a class token has one), tied weights, heads that share keys, norms: group norm,
and batch norm that stands still. Batch norm in training counts a rank's own share of a batch, sharded or not, and ``SyncBatchNorm`` runs on
no CPU: neither is one process again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

BATCH, CLASSES = 8, 3
SPREAD = 0.2
"""Of the first weights of transformers. Of the usual 0.02 a step of the optimizer makes d negative, which counts as 32 bits: the rest of a
division by 2**31 is chance, and d learns from it."""
Batch = tuple[Tensor, Tensor]


class Block(nn.Module):
    """Two convolutions beside a shortcut."""

    def __init__(self, width: int, hidden: int, norm: Callable[[int], nn.Module]) -> None:
        super().__init__()
        self.first, self.norm1 = nn.Conv2d(width, hidden, 3, padding=1, bias=False), norm(hidden)
        self.second, self.norm2 = nn.Conv2d(hidden, width, 3, padding=1, bias=False), norm(width)

    def forward(self, x: Tensor) -> Tensor:
        return F.gelu(x + self.norm2(self.second(F.gelu(self.norm1(self.first(x))))))


def resnet(norm: Callable[[int], nn.Module]) -> nn.Module:
    blocks = (Block(10, 6, norm), Block(10, 14, norm))
    return nn.Sequential(nn.Conv2d(3, 10, 3, bias=False), norm(10), *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(10, CLASSES))


def standing_norm(width: int) -> nn.Module:
    """Batch norm that has seen data once, and is put to eval for good."""
    norm = nn.BatchNorm2d(width)
    nn.init.uniform_(norm.running_mean, -0.5, 0.5)
    nn.init.uniform_(norm.running_var, 0.5, 2.0)
    return norm


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 17), nn.GELU(), nn.Linear(17, 13), nn.GELU(), nn.Linear(13, CLASSES))


def wide_mlp() -> nn.Module:
    """A weight far larger than anything that the optimizer may send or make: 512 groups a layer."""
    return nn.Sequential(nn.Linear(6, 512), nn.GELU(), nn.Linear(512, 512), nn.GELU(), nn.Linear(512, CLASSES))


def vit() -> nn.Module:
    from transformers import ViTConfig, ViTForImageClassification

    config = ViTConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=4, intermediate_size=22, image_size=8, patch_size=4, num_labels=CLASSES,
        hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, initializer_range=SPREAD,
    )  # fmt: skip
    return ViTForImageClassification(config)


def llama() -> nn.Module:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=23, hidden_size=16, num_hidden_layers=1, num_attention_heads=4, num_key_value_heads=2, intermediate_size=22,
        max_position_embeddings=16, tie_word_embeddings=True, use_cache=False, initializer_range=SPREAD,
    )  # fmt: skip
    return LlamaForCausalLM(config)


def rows(draw: torch.Generator) -> Batch:
    return torch.randn(BATCH, 6, generator=draw).double(), torch.randint(CLASSES, (BATCH,), generator=draw)


def images(draw: torch.Generator) -> Batch:
    labels = torch.randint(CLASSES, (BATCH,), generator=draw)
    x = 0.5 * torch.randn(BATCH, 3, 8, 8, generator=draw).double()
    x[torch.arange(BATCH), labels] += 0.5
    return x, labels


def tokens(draw: torch.Generator) -> Batch:
    ids = torch.randint(23, (BATCH, 6), generator=draw)
    return ids, ids.roll(-1, 1)


def logits(output: Any) -> Tensor:
    return output if isinstance(output, Tensor) else output[0]


@dataclass(frozen=True)
class Net:
    """How to build one, its batches, and the modules that ``fully_shard`` is applied to before the whole."""

    build: Callable[[], nn.Module]
    draw: Callable[[torch.Generator], Batch]
    parts: Callable[[nn.Module], Sequence[nn.Module]]
    standing: bool = False

    def make(self, seed: int = 0) -> nn.Module:
        torch.manual_seed(seed)
        model = self.build().double()
        return model.eval() if self.standing else model.train()

    def batch(self, step: int) -> Batch:
        """The same on every rank; each takes its rows."""
        return self.draw(torch.Generator().manual_seed(1000 + step))

    def loss(self, model: nn.Module, x: Tensor, labels: Tensor) -> Tensor:
        found = logits(model(x))
        return F.cross_entropy(found.flatten(0, -2), labels.flatten())


NETS = {
    "mlp": Net(mlp, rows, lambda m: [m[2]]),
    "wide": Net(wide_mlp, rows, lambda m: [m[2]]),
    "resnet": Net(lambda: resnet(lambda width: nn.GroupNorm(2, width)), images, lambda m: [m[2], m[3]]),
    "resnet, norms stand": Net(lambda: resnet(standing_norm), images, lambda m: [m[2], m[3]], standing=True),
    "vit": Net(vit, images, lambda m: list(m.vit.encoder.layer) if hasattr(m.vit, "encoder") else list(m.vit.layers)),
    "llama": Net(llama, tokens, lambda m: list(m.model.layers)),
}
