"""Weights that come from elsewhere, averages of a run above all, held to what the run has reached. In: a model. Out: the same, in place.

An average of weights (EMA, SWA) has the groups that went at small numbers instead of zero, and bit widths between whole ones. Both are put
back; all else stays as averaged.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from geta_nb.errors import GetaWarning, InputError
from geta_nb.qasso.members import Members
from geta_nb.qasso.projection import QuantizerBank
from geta_nb.quantizers import parameter_tensors, quantizers_at

if TYPE_CHECKING:
    from geta_nb.groups import GroupTable

_WRAPPERS = (AveragedModel, nn.parallel.DistributedDataParallel, nn.DataParallel)


@torch.no_grad()
def hold(members: Members, bank: QuantizerBank, alive: Tensor) -> None:
    """Put dead groups to zero, and each bit width to what is fixed, or into its range where nothing is yet; in place.

    Args:
        members: the groups, bound to the tensors.
        bank: the quantizers, with the bounds that hold.
        alive: bool [G].
    """
    if not bool(alive.all()):
        factors = members.factors(~alive)
        factors.set(alive.to(torch.float32))
        factors.apply()
    bank.hold()


def bound_to(
    model: nn.Module, table: GroupTable, bank: QuantizerBank, parameters: Mapping[str, Tensor], layer_of: Mapping[str, str]
) -> tuple[Members, QuantizerBank]:
    """Return groups and quantizers of another model of the same form, with the bounds of ``bank``.

    Args:
        model: a copy of the trained one, or an average of it, which may be wrapped.
        table: the groups.
        bank: of the trained model.
        parameters: of the trained model, by name.
        layer_of: parameter name -> layer of its quantizer.

    Raises:
        InputError: another model; nothing was changed.
    """
    while isinstance(model, _WRAPPERS):
        model = model.module
    if not isinstance(model, nn.Module):
        raise InputError("hold: no model.", expected="the trained model, or a copy of it", got=type(model).__name__)
    found = parameter_tensors(model)
    for name, tensor in parameters.items():
        if name not in found or found[name].shape != tensor.shape:
            got = f"shape {tuple(found[name].shape)}" if name in found else "none of this name"
            raise InputError("hold: not a copy of the model that was trained.", at=name, expected=f"shape {tuple(tensor.shape)}", got=got)
    layers = {kind: [layer for each, layer in bank.keys if each == kind] for kind in ("weight", "activation")}
    weights, inputs = quantizers_at(model, layer_of, layers["activation"])
    missing = [layer for kind, table in (("weight", weights), ("activation", inputs)) for layer in layers[kind] if layer not in table]
    if missing:
        raise InputError(
            "hold: a copy without quantizers.", at=", ".join(missing[:3]), expected="a copy that was made after gt.GETA(model, ...)",
            got=f"{len(missing)} of {len(bank)} are missing", hint="AveragedModel(geta.model), after gt.GETA(model, ...)",
        )  # fmt: skip
    of = {**{("weight", layer): q for layer, q in weights.items()}, **{("activation", layer): q for layer, q in inputs.items()}}
    for key, quantizer in zip(bank.keys, bank.quantizers, strict=True):
        if (other := inputs.get(key[1])) is not None and key[0] == "activation":
            other.set_signed(quantizer.signed)
    ordered = {kind: {layer: of[kind, layer] for layer in layers[kind]} for kind in layers}
    twin = QuantizerBank(ordered["weight"], ordered["activation"], list(zip(bank.lower, bank.upper, strict=True)))
    twin.bound, twin.frozen = list(bank.bound), None if bank.frozen is None else list(bank.frozen)
    return Members(table, found).with_buffers_of(model), twin


def warn_of_strays(alive: NDArray[np.bool_], nonzero: NDArray[np.bool_], bank: QuantizerBank) -> None:
    """Warn where the trained model holds weights that are not those the run ended with.

    Args:
        alive: what the run left, bool [G].
        nonzero: what the model holds, bool [G].
        bank: of the run.
    """
    back, moved = int((nonzero & ~alive).sum()), _moved(bank)
    if not back and not moved:
        return
    parts = [f"{back} of the {int((~alive).sum())} groups that went are not zero"] * bool(back)
    parts += [f"{len(moved)} of {len(bank)} bit widths are not those that were fixed"] * bool(moved)
    warnings.warn(
        GetaWarning(
            "construct_subnet: the model holds other weights than the run ended with.", at=", ".join(moved[:3]) or None,
            expected="weights that the optimizer left", got=" and ".join(parts),
            hint="optimizer.hold() after averaged weights (EMA, SWA) are loaded into the model",
        ),
        stacklevel=3,
    )  # fmt: skip


def _moved(bank: QuantizerBank) -> Sequence[str]:
    if bank.frozen is None:
        return ()
    return [layer for (_, layer), now, fixed in zip(bank.keys, bank.bits(), bank.frozen, strict=True) if not abs(now - fixed) <= 0.01]
