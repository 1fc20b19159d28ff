"""A run that stops and goes on: the façade's checkpoints. In: a ``GETA`` and what else the run needs. Out: one file, and all of it back.

A part of the façade, stage 13.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from os import PathLike
from typing import Any, Self

from torch import Tensor, nn

from geta_nb.config import QuantConfig
from geta_nb.errors import CheckpointError, ConfigError
from geta_nb.files import checkpoint, distributed, first_difference, random_state
from geta_nb.groups import GroupList
from geta_nb.qadg import Analysis
from geta_nb.qasso import QASSO
from geta_nb.quantizers import Quantizer, Quantizers, own_tensors, start_ranges
from geta_nb.sharding import is_managed, reshard


class Resumable:
    """What of :class:`geta_nb.GETA` is kept in a checkpoint, and comes back from one."""

    model: nn.Module
    config: QuantConfig | None
    protect: tuple[str, ...]
    approximate_norms: bool
    dynamic: bool
    groups: GroupList
    quantizers: Quantizers | None
    _analysis: Analysis
    _optimizer: QASSO | None
    _pending: dict[str, Any] | None
    _saved: dict[str, Any]

    def save_checkpoint(self, path: str | PathLike[str], **extra: Any) -> None:
        """Write model, quantizers, the optimizer of the last :meth:`qasso` and the global random numbers to one file, whole or not at all.

        Args:
            path: the file; one that is there is replaced only when the new one is complete.
            extra: what else the run needs, by name: anything with a ``state_dict`` (scheduler, gradient scaler), a ``torch.Generator``, or
                plain values and tensors (the epoch). :meth:`restore` gives it back.

        Raises:
            CheckpointError: a value that a file cannot hold, or no place to write; what was there stays.
        """
        if is_managed(self.model):
            raise CheckpointError(
                "save_checkpoint: one file cannot hold a sharded model.", at=path, expected="a model that this process has whole",
                got="one of fully_shard", hint='torch.distributed.checkpoint.save({"geta": geta}, checkpoint_id=folder)',
            )  # fmt: skip
        state = {
            "model": self.model.state_dict(),
            "optimizer": self._optimizer.state_dict() if self._optimizer is not None else self._pending,
            **self._options(),
            "random": random_state.capture(),
            "extra": checkpoint.state_of(extra),
        }
        checkpoint.write(path, state)

    def _options(self) -> dict[str, Any]:
        return {
            "quantize": asdict(self.config) if self.config is not None else None,
            "protect": list(self.protect),
            "approximate_norms": self.approximate_norms,
            "dynamic": self.dynamic,
            "groups": len(self.groups),
        }

    def state_dict(self) -> dict[str, Any]:
        """Return model, quantizers, the optimizer of the last :meth:`qasso` and where its run stands, for ``torch.distributed.checkpoint``.

        So ``dcp.save({"geta": geta}, checkpoint_id=folder)`` writes it, each rank what it has, and ``dcp.load`` reads it on any number of
        ranks. All ranks must ask. Random numbers, which are each rank's own, are not in it.
        """
        reshard(self.model)
        optimizer = self._optimizer
        return distributed.run_state(self.model, self._options(), None if optimizer is None else (optimizer.inner, optimizer.own_state()))

    def load_weights(self, state: Mapping[str, Tensor] | None) -> None:
        """Give the network the weights of a plain one, by their own names, also where it is sharded or came from the meta device.

        Ranges of weights start on them as if new; those of inputs have to be calibrated again.

        Args:
            state: name -> whole tensor, of all parameters and of the buffers that a state dict holds; only rank 0 has to have it. All
                ranks call this, and none has more of a sharded network than its rows and one tensor.

        Raises:
            CheckpointError: a tensor that is missing, of another shape, or of no such name; nothing was changed.
        """
        reshard(self.model)
        own = own_tensors(self.model)
        quantizers = [part for part in self.model.modules() if isinstance(part, Quantizer)]
        theirs = {id(tensor) for part in quantizers for tensor in (*part.parameters(), *part.buffers())}
        saved = {name: tensor for name, tensor in own.buffers.items() if name in own.saved and id(tensor) not in theirs}
        distributed.scatter_weights({**own.parameters, **saved}, state)
        for quantizer in quantizers:
            quantizer.forget_range()
        if self.quantizers is not None:
            start_ranges(self.quantizers, own.parameters)
        self._analysis.match_codes()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore :meth:`state_dict`; before :meth:`qasso` the model's part alone, and ranges with it.

        Raises:
            CheckpointError: the state of another network, or of another budget or schedule; nothing was changed.
        """
        (options, own), optimizer = distributed.read_state(state), self._optimizer
        difference = first_difference("options", self._options(), options)
        if difference is not None:
            at, expected, got = difference
            raise CheckpointError("load_state_dict: the run of another network.", at=at, expected=expected, got=got)
        if optimizer is not None and own is not None:
            optimizer.check_own_state(own)
        reshard(self.model)
        distributed.load_run(self.model, None if optimizer is None else optimizer.inner, state)
        self._analysis.match_codes()
        if optimizer is not None and own is not None:
            optimizer.load_own_state(own)

    def restore(self, **objects: Any) -> dict[str, Any]:
        """After :meth:`resume` and :meth:`qasso`: give schedulers, scalers and generators their state back, and return all that was saved.

        The last thing to do before training goes on. A scheduler that is built anew writes its first learning rates into the optimizer;
        this puts those of the checkpoint back, and the global random numbers.

        Args:
            objects: by the names under which :meth:`save_checkpoint` got them.

        Returns:
            name -> plain value, or the state of an object.

        Raises:
            CheckpointError: a name under which nothing was saved, or nothing was resumed.
            ConfigError: an object that has no state.
        """
        if not self._saved:
            raise CheckpointError("restore: this GETA was not resumed.", hint="geta = gt.GETA.resume(path, model, example_inputs)")
        saved: dict[str, Any] = self._saved["extra"]
        checkpoint.load_into(objects, saved)
        if self._optimizer is not None:
            for group, before in zip(self._optimizer.param_groups, self._saved.get("groups", ()), strict=False):
                group.update({key: value for key, value in before.items() if key != "params"})
        random_state.restore(self._saved["random"])
        return dict(saved)

    @classmethod
    def resume(
        cls, path: str | PathLike[str], model: nn.Module, example_inputs: Any, *, example_kwargs: Mapping[str, Any] | None = None
    ) -> Self:
        """Return a ``GETA`` in the state of a checkpoint; the next :meth:`qasso` call restores the optimizer too.

        Raises:
            CheckpointError: the file is not a checkpoint, is damaged, or is one of another model, which is then as it was.
        """
        state = checkpoint.read(path)
        # checkpoints from before there was a choice have symmetric codes
        config = QuantConfig(**{"narrow_range": True, **state["quantize"]}) if state["quantize"] is not None else None
        options: dict[str, Any] = {"protect": tuple(state["protect"]), "approximate_norms": bool(state.get("approximate_norms", False))}
        options["dynamic"] = bool(state.get("dynamic", True))
        try:
            geta: Self = cls(model, example_inputs, example_kwargs=example_kwargs, quantize=config, **options)  # type: ignore[call-arg]
        except ConfigError as error:  # the options were right for the model that was saved
            raise CheckpointError("resume: a checkpoint of another model.", at=path, got=error.what) from error
        try:
            checkpoint.restore(model, state, len(geta.groups), path)
        except BaseException:
            if geta.quantizers is not None:
                geta.quantizers.undo()
            raise
        geta._analysis.match_codes()
        geta._pending = state["optimizer"]
        geta._saved = {"random": state["random"], "extra": state["extra"]}
        return geta
