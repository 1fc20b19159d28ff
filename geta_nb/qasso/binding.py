"""An optimizer's tensors are its model's, on every step; where the model is sharded after the optimizer was built, they become its shards.

In: the model and the optimizer. Out: a hook before each step. Trainers build the optimizer first and shard afterwards; by the first step
the groups, the quantizers and the inner optimizer hold the shards, and train those.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from geta_nb.errors import ConfigError
from geta_nb.qasso import ranks
from geta_nb.qasso.whole_gradients import WholeGradients
from geta_nb.quantizers import parameter_tensors
from geta_nb.sharding import is_sharded, reshard


class Binding:
    """A hook before each step.

    Args:
        model: what is trained; None: an inert hook, as a copy of an optimizer has.
        parameters: own name -> tensor, as the optimizer has them.
        quantizers: parameters of quantizers, which are whole on every rank.
    """

    def __init__(
        self, model: nn.Module | None = None, parameters: Mapping[str, nn.Parameter] | None = None, quantizers: Sequence[nn.Parameter] = ()
    ) -> None:
        self._model = model
        self._expected = dict(parameters or {})
        self._gradients = None if model is None else WholeGradients(model, quantizers)
        if any(is_sharded(tensor) for tensor in self._expected.values()):
            self._watch_whole(self._expected)

    def __deepcopy__(self, memo: dict[int, Any]) -> Binding:
        return Binding()

    def _watch_whole(self, parameters: Mapping[str, nn.Parameter]) -> None:
        """Average the gradients of what ``fully_shard`` was told to ignore: nobody else does."""
        if self._gradients is not None:
            self._gradients.watch(p for p in parameters.values() if not is_sharded(p))

    def reshard(self) -> None:
        """Let the model's parameters be its shards, which others write into."""
        if self._model is not None:
            reshard(self._model)

    def __call__(self, optimizer: Any, *_: Any) -> None:
        """See that the tensors are the model's, and that gradients are the same on all ranks.

        Raises:
            ConfigError: a parameter of the model is another tensor by now (``load_state_dict(assign=True)``), or sharded in a way that
                is not supported; nothing was changed.
        """
        if self._gradients is not None:
            self._gradients.settle()
        if not self._expected or self._model is None:
            return
        reshard(self._model)
        now = parameter_tensors(self._model)
        ranks.check_shards_of(self._model, now, "QASSO.step")
        changed = [name for name, tensor in self._expected.items() if now.get(name) is not tensor]
        for name in changed:
            if name not in now or not is_sharded(now[name]) or now[name].shape != self._expected[name].shape:
                raise ConfigError(
                    "QASSO.step: the model has other parameters than when the optimizer was built.", at=name,
                    expected="the same tensors, or their shards", got="another one" if name in now else "none of this name",
                    hint="call geta.qasso(...) after the last change of the model's parameters",
                )  # fmt: skip
        if changed:
            rebind(optimizer, self._model, now)
            self._watch_whole(now)
            if self._gradients is not None:
                self._gradients.average()  # of this first pass nobody had
        self._expected.clear()


def rebind(optimizer: Any, model: nn.Module, parameters: Mapping[str, nn.Parameter]) -> None:
    """Let an optimizer that has not stepped yet train other tensors of the same names.

    Raises:
        ConfigError: the inner optimizer has state for one of them already; nothing was changed.
    """
    new = {id(old): parameters[name] for name, old in optimizer.parameters.items() if parameters[name] is not old}
    known = [name for name, old in optimizer.parameters.items() if id(old) in new and optimizer.inner.state.get(old)]
    if known:
        raise ConfigError(
            "QASSO.step: the model was sharded after the optimizer's state was loaded.", at=known[0],
            expected="fully_shard first", hint="fully_shard(geta.model); optimizer = geta.qasso(...); then load its state",
        )  # fmt: skip
    for group in optimizer.param_groups:
        group["params"] = [new.get(id(p), p) for p in group["params"]]
    optimizer.take_over(parameters)
    optimizer.pruner.members.with_buffers_of(model)
