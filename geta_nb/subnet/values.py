"""The numbers of the subnet before they are sliced: nothing is copied that a cut would throw away. Between the network and the cut."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor, nn


class Values(Mapping[str, Tensor]):
    """Own name -> value as the subnet starts from it: x^Q for quantized parameters.

    Reading one by name makes a whole copy that may be changed in place; tied names read the same one. The others stay the model's own
    tensors in :attr:`sources`, to be sliced first and quantized after: a quantizer works element by element.

    Args:
        parameters: own name -> parameter of the model.
        buffers: own name -> buffer of the model.
        quantize: (name, whole value) -> value as the network uses it, a new tensor or the same.
        quantize_part: the same of what the cut leaves of a value.
    """

    def __init__(
        self,
        parameters: Mapping[str, nn.Parameter],
        buffers: Mapping[str, Tensor],
        quantize: Callable[[str, Tensor], Tensor],
        quantize_part: Callable[[str, Tensor], Tensor],
    ) -> None:
        self._live: dict[str, Tensor] = {**parameters, **buffers}
        self._quantize, self._quantize_part = quantize, quantize_part
        self._made: dict[int, Tensor] = {}

    def __len__(self) -> int:
        return len(self._live)

    def __iter__(self) -> Iterator[str]:
        return iter(self._live)

    def __getitem__(self, name: str) -> Tensor:
        live = self._live[name]
        if id(live) not in self._made:
            with torch.no_grad():
                value = self._quantize(name, live.detach()).clone()
            self._made[id(live)] = nn.Parameter(value, live.requires_grad) if isinstance(live, nn.Parameter) else value
        return self._made[id(live)]

    def changed(self, name: str) -> bool:
        """Whether a copy was made, to be changed: its values need not lie on the steps of its quantizer any more."""
        return id(self._live[name]) in self._made

    @property
    def sources(self) -> dict[str, Tensor]:
        """Own name -> the copy that was made, else the model's own tensor; tied names give one object."""
        return {name: self._made.get(id(live), live) for name, live in self._live.items()}

    @torch.no_grad()
    def finish(self, name: str, value: Tensor) -> Tensor:
        """Return a slice of :attr:`sources` as the network uses it."""
        return value if self.changed(name) else self._quantize_part(name, value)
