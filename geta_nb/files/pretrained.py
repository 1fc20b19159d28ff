"""A native subnet of a ``transformers`` model as a folder that ``from_pretrained`` reads, where its configuration can say the new sizes.

Comes in: a subnet that is a ``PreTrainedModel``, and example inputs. Goes out: the folder, read back and compared. No class and no option
is known by name: an integer of the configuration that brings the shapes of a fresh model nearer to the subnet's is the one to change.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from itertools import islice, product
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import nn

from geta_nb.errors import ArtifactError
from geta_nb.graph import are_close, example_arguments, outputs_of

Shapes = dict[str, tuple[int, ...]]
_MOST = 512  # combinations that are tried
_SMALL = 64  # a count up to this may become any smaller one; larger numbers only sizes that stand in the subnet


def save_pretrained(
    subnet: nn.Module, folder: str | PathLike[str], example_inputs: Any, *, example_kwargs: Mapping[str, Any] | None = None
) -> Path:
    """Write a native subnet with ``subnet.save_pretrained``, its configuration fitted, and read it back.

    Weights are written as float32 (on their grid): :func:`geta_nb.save` writes the small file. The subnet gets a fitted copy of its
    configuration; the one that it shared with the model stays as it is.

    Args:
        subnet: what ``construct_subnet`` returned for a ``transformers`` model, ``geta_info.kind == "native"``, with plain inputs.
        folder: where to.
        example_inputs, example_kwargs: what both are compared on.

    Returns:
        The folder; ``type(subnet).from_pretrained(folder)`` computes what ``subnet`` computes.

    Raises:
        ArtifactError: no native ``transformers`` subnet, one with quantized inputs, a configuration that cannot say these sizes (layers
            that lost different shares, or heads where the configuration derives their size), or a network that reads back otherwise;
            such a subnet comes back by ``gt.load(path, model=...)``.
    """
    args, kwargs = example_arguments(example_inputs, example_kwargs)
    info, config = getattr(subnet, "geta_info", None), getattr(subnet, "config", None)
    writable = hasattr(subnet, "save_pretrained") and hasattr(type(subnet), "from_pretrained") and config is not None
    if not writable or getattr(info, "kind", "") != "native" or getattr(info, "activation_formats", None):
        raise ArtifactError(
            "save_pretrained: not a native subnet of a transformers model with plain inputs.",
            expected='geta_info.kind == "native" and a configuration, inputs not quantized',
            got=f"{type(subnet).__name__}, {getattr(info, 'kind', 'no subnet')}", hint="gt.save(subnet, path) takes any subnet",
        )
    module: Any = subnet

    def same(fitted: Any) -> bool:
        twin = type(module)(copy.deepcopy(fitted)).eval()
        twin.load_state_dict(module.state_dict())
        return are_close(outputs_of(twin, args, kwargs), outputs_of(module, args, kwargs))

    module.config = fit_config(subnet, config, same)
    module.save_pretrained(folder)
    again = type(module).from_pretrained(folder).eval()
    if not are_close(outputs_of(again, args, kwargs), outputs_of(subnet, args, kwargs)):
        raise ArtifactError("save_pretrained: the folder reads back as another network.", at=folder, hint="gt.save(subnet, path)")
    return Path(folder)


def fit_config(subnet: nn.Module, config: Any, same: Callable[[Any], bool]) -> Any:
    """Return a copy of a configuration from which ``type(subnet)`` builds a model of the subnet's shapes that computes the same.

    Every whole number that brings the shapes nearer, alone or after another one did, may change; combinations are tried, those that
    change least first. Shapes do not tell four heads of two from two heads of four: ``same`` does. Of other numbers (the epsilon of
    norms over fewer channels) the configuration must give all that the subnet has.

    Raises:
        ArtifactError: there is none; the message names tensors whose shapes it cannot give.
    """
    build: Callable[[Any], nn.Module] = type(subnet)
    wanted = _shapes(subnet)
    wrong = _mismatches(build, config, wanted)
    moves = _useful_moves(build, config, wanted)
    combinations = islice(product(*([None, *values] for values in moves.values())), _MOST)
    for combination in sorted(combinations, key=lambda values: sum(value is not None for value in values)):
        found = _changed(config, {key: value for key, value in zip(moves, combination, strict=True) if value is not None})
        if not _mismatches(build, found, wanted) and (whole := _with_numbers(build, found, subnet)) is not None and same(whole):
            return whole
    raise ArtifactError(
        "save_pretrained: no value of the configuration gives these shapes.", at=", ".join(sorted(wrong)[:3]),
        expected="one size for all layers, and sizes and epsilons that the configuration has an option for",
        got=", ".join(str(wanted.get(name, "absent")) for name in sorted(wrong)[:3]),
        hint=f"gt.save(subnet, path), and back with gt.load(path, model={type(subnet).__name__}(config)), config being the dense model's",
    )


def _useful_moves(build: Callable[[Any], nn.Module], config: Any, wanted: Shapes) -> dict[str, list[Any]]:
    """Return the options, each with the values that bring shapes nearer: to begin with, and after the best of them so far is taken."""
    moves: dict[str, list[Any]] = {}
    taken: dict[str, Any] = {}
    left = _mismatches(build, config, wanted)
    while left:
        now = _changed(config, taken)
        counts = {}
        for key, value in _moves(now, wanted, left):
            counts[key, value] = len(_mismatches(build, _changed(now, {key: value}), wanted))
        better = [move for move, count in counts.items() if count < len(left)]
        for key, value in better:
            moves.setdefault(key, [])
            moves[key] += [value] if value not in moves[key] else []
        if not better:
            break
        key, value = min(better, key=counts.__getitem__)
        taken[key] = value
        left = _mismatches(build, _changed(config, taken), wanted)
    return moves


def _with_numbers(build: Callable[[Any], nn.Module], config: Any, subnet: nn.Module) -> Any:
    """Return a configuration that gives the modules the numbers of the subnet that are no sizes; None where none does."""
    widths = getattr(subnet.geta_info, "widths", None) or {}
    wanted = {(path, name): value for path, found in widths.items() for name, value in found.items() if type(value) is float}

    def wrong(candidate: Any) -> int:
        with torch.device("meta"):
            built = build(copy.deepcopy(candidate))
        return sum(vars(built.get_submodule(path)).get(name) != value for (path, name), value in wanted.items())

    left = wrong(config) if wanted else 0
    while left:
        keys = [key for key, value in config.to_dict().items() if type(value) is float]
        tried = [_changed(config, {key: value}) for key in keys for value in sorted(set(wanted.values()))]
        best = min(tried, key=wrong, default=config)
        if wrong(best) >= left:
            return None
        config, left = best, wrong(best)
    return config


def _changed(config: Any, values: Mapping[str, Any]) -> Any:
    changed = copy.deepcopy(config)
    for key, value in values.items():
        setattr(changed, key, value)
    return changed


def _shapes(module: nn.Module) -> Shapes:
    return {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}


def _mismatches(build: Callable[[Any], nn.Module], config: Any, wanted: Shapes) -> set[str]:
    """Return names whose shape differs; all of them where the model cannot be built."""
    try:
        with torch.device("meta"):
            shapes = _shapes(build(copy.deepcopy(config)))
    except Exception:  # a combination that the model's own checks refuse
        return set(wanted)
    return {name for name in wanted.keys() | shapes.keys() if wanted.get(name) != shapes.get(name)}


def _moves(config: Any, wanted: Shapes, wrong: set[str]) -> Iterator[tuple[str, int]]:
    """Yield (option, other value): sizes that stand in the subnet, and for small counts every smaller one."""
    sizes = {size for name in wrong for size in wanted.get(name, ())}
    for key, value in config.to_dict().items():
        counts = value is None or (isinstance(value, int) and not isinstance(value, bool) and value > 1)
        if not counts or key.endswith("_token_id"):
            continue
        smaller = set(range(1, value)) if value is not None and value <= _SMALL else set()
        for size in sorted((sizes | smaller) - {value}):
            try:
                _changed(config, {key: size})
            except Exception:  # an option that takes no number
                break
            yield key, size
