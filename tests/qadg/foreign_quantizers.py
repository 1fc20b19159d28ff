"""Fake-quant modules as other people write them; none of them knows geta_nb. Goes out: modules x -> x^Q, and nets of them."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Lsq(nn.Module):
    """LSQ: a learned step, gradients scaled, the straight-through estimator written x + (q - x).detach()."""

    def __init__(self, step: float = 0.05, bits: int = 8) -> None:
        super().__init__()
        self.step = nn.Parameter(torch.tensor(step))
        self.low, self.high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1

    def forward(self, x: Tensor) -> Tensor:
        scale = 1.0 / (x.numel() * self.high) ** 0.5 if isinstance(x.numel(), int) else 1e-3
        step = (self.step - self.step * scale).detach() + self.step * scale
        code = torch.clamp(x / step, self.low, self.high)
        return (code + (code.round() - code).detach()) * step


class LsqOutside(Lsq):
    """The estimator around the whole quantizer: x + (quantized - x).detach()."""

    def forward(self, x: Tensor) -> Tensor:
        quantized = torch.clamp(torch.round(x / self.step), self.low, self.high) * self.step
        return x + (quantized - x).detach()


class Affine(nn.Module):
    """Uniform with a zero point: (clamp(round(x / s) + z) - z) s; zero stays zero for a whole z."""

    def __init__(self, scale: float = 0.04, zero_point: float = 7.0) -> None:
        super().__init__()
        self.register_buffer("scale", torch.tensor(scale))
        self.register_buffer("zero_point", torch.tensor(zero_point))

    def forward(self, x: Tensor) -> Tensor:
        return (torch.clamp(torch.round(x / self.scale) + self.zero_point, -128, 127) - self.zero_point) * self.scale


class ShiftedAffine(Affine):
    """The rounding after the zero point, which is no whole number: zero does not stay zero."""

    def __init__(self) -> None:
        super().__init__(0.3, 0.6)

    def forward(self, x: Tensor) -> Tensor:
        return (torch.clamp(torch.round(x / self.scale + self.zero_point), -128, 127)) * self.scale


class Pact(nn.Module):
    """PACT: clip at a learned alpha, then 2**bits - 1 levels; for what follows a ReLU."""

    def __init__(self, alpha: float = 6.0, bits: int = 4) -> None:
        super().__init__()
        self.alpha, self.levels = nn.Parameter(torch.tensor(alpha)), 2**bits - 1

    def forward(self, x: Tensor) -> Tensor:
        y = 0.5 * (x.abs() - (x - self.alpha).abs() + self.alpha)
        return torch.round(y * self.levels / self.alpha) * self.alpha / self.levels


class Torch(nn.Module):
    """torch's own fused operator with tensor scale and zero point, as torch.ao's FakeQuantize calls it."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("scale", torch.tensor(0.05))
        self.register_buffer("zero_point", torch.tensor(0, dtype=torch.int32))

    def forward(self, x: Tensor) -> Tensor:
        return torch.fake_quantize_per_tensor_affine(x, self.scale, self.zero_point, -128, 127)


class TorchNumbers(nn.Module):
    """The same with plain numbers."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.fake_quantize_per_tensor_affine(x, 0.05, 0, -128, 127)


class TorchLearnable(nn.Module):
    """torch's learnable operator, as torch.ao's _LearnableFakeQuantize calls it."""

    def __init__(self) -> None:
        super().__init__()
        self.scale, self.zero_point = nn.Parameter(torch.tensor([0.05])), nn.Parameter(torch.tensor([0.0]))

    def forward(self, x: Tensor) -> Tensor:
        return torch._fake_quantize_learnable_per_tensor_affine(x, self.scale, self.zero_point, -128, 127, 1.0)


class PerChannel(nn.Module):
    """A step for each output channel, written with views: more than one number, so it is no branch, and has to stay right."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.step = nn.Parameter(torch.linspace(0.02, 0.05, channels))

    def forward(self, x: Tensor) -> Tensor:
        step = self.step.view(-1, *[1] * (x.dim() - 1))
        return torch.round(x / step) * step


class DoReFa(nn.Module):
    """DoReFa weights: tanh, divided by its largest value, squeezed into [0, 1]. Zero becomes a level that is not zero."""

    def forward(self, x: Tensor) -> Tensor:
        bent = torch.tanh(x)
        unit = bent / (2 * bent.abs().max()) + 0.5
        return 2 * torch.round(unit * 15) / 15 - 1


class Dynamic(nn.Module):
    """The step from the data itself, max|x| / 127: what goes in decides more than one element."""

    def forward(self, x: Tensor) -> Tensor:
        step = x.abs().max() / 127
        return torch.round(x / step) * step


class QuantConv(nn.Conv2d):
    """A convolution whose forward quantizes weight and input inline; no quantizer is a module of its own scope."""

    def __init__(self, i: int, o: int, kernel: int, weight: nn.Module | None, data: nn.Module | None) -> None:
        super().__init__(i, o, kernel, padding=kernel // 2)
        self.weight_fake_quant, self.input_fake_quant = weight, data

    def forward(self, x: Tensor) -> Tensor:
        x = self.input_fake_quant(x) if self.input_fake_quant is not None else x
        weight = self.weight_fake_quant(self.weight) if self.weight_fake_quant is not None else self.weight
        return F.conv2d(x, weight, self.bias, padding=self.padding)


class InlineConv(nn.Conv2d):
    """The quantizer's arithmetic in the convolution's own forward."""

    def __init__(self, i: int, o: int, kernel: int) -> None:
        super().__init__(i, o, kernel, padding=kernel // 2)
        self.step, self.input_step = nn.Parameter(torch.tensor(0.02)), nn.Parameter(torch.tensor(0.05))

    def forward(self, x: Tensor) -> Tensor:
        x = torch.clamp(torch.round(x / self.input_step), -128, 127) * self.input_step
        weight = torch.clamp(torch.round(self.weight / self.step), -128, 127) * self.step
        return F.conv2d(x, weight, self.bias, padding=self.padding)


def conv_net(make: Callable[[], nn.Module | None], data: Callable[[], nn.Module | None] = lambda: None, width: int = 8) -> nn.Sequential:
    """Return conv-BN-ReLU-conv-ReLU-conv with a quantizer on each weight and input; outputs [B, 3, H, W]."""
    return nn.Sequential(
        QuantConv(3, width, 3, make(), data()),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        QuantConv(width, width, 3, make(), data()),
        nn.ReLU(),
        QuantConv(width, 3, 1, make(), data()),
    )
