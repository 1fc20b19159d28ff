"""The parameter group of the quantizers. In: an optimizer over the model's parameters. Out: the same, which trains d, q_m and t too."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from geta_nb.errors import ConfigError


def add_own_group(inner: torch.optim.Optimizer, parameters: Sequence[torch.nn.Parameter], lr: float) -> None:
    """Add those ``parameters`` that no group of an optimizer holds as a last one, with a learning rate of its own and no weight decay.

    Raises:
        ConfigError: an optimizer that takes one group alone.
    """
    present = {id(p) for group in inner.param_groups for p in group["params"]}
    missing = [p for p in parameters if id(p) not in present]
    if not missing:
        return
    if isinstance(inner, torch.optim.LBFGS):  # it would take a second group and never look at it
        raise ConfigError(
            "QASSO: LBFGS trains one parameter group, and the quantizers need one of their own.", expected="another optimizer",
            got="LBFGS over the model's own parameters",
            hint="torch.optim.LBFGS(geta.model.parameters()) trains them too, at its own rate",
        )  # fmt: skip
    # zero decay whatever the default: a step size that decays is a bit width that drifts
    decay = {"weight_decay": 0.0} if "weight_decay" in inner.defaults else {}
    inner.add_param_group({"params": missing, "lr": lr, **decay})
