"""A training process that can be killed anywhere and started again. Run by tests/qasso/test_resume.py, never by pytest itself.

``resume_worker.py run FOLDER JSON`` trains once; ``resume_worker.py serve FILE`` forks a process for each case of a JSON list, lets it die
where the case says, starts it again until it is done, and writes what came out: forks spare importing torch a hundred times.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

import geta_nb as gt
from geta_nb.files import checkpoint
from geta_nb.files.checkpoint import save_file

# warm-up 0-1, projection 2-6 (falls after 3, 4, 5, 7 steps), joint 5-12 in periods of 2, 3, 3, cool-down from 13
SCHEDULE = gt.Schedule(2, 5, 4, 8, 3, 2, joint_start=5)
TOTAL = 16
NAME = "run.checkpoint"


def die() -> None:
    """What a power cut does: nothing is written, flushed or tidied up."""
    os.kill(os.getpid(), signal.SIGKILL)


class Net(nn.Sequential):
    """With dropout and batch norm, so that random numbers and buffers count."""

    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Dropout(0.2),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3),
        )  # fmt: skip


def budget_of(case: dict[str, Any]) -> gt.Budget:
    """Half the groups, or as many as a cost target asks."""
    target = {"relative_bops": 0.02} if case.get("target") else {"group_sparsity": 0.5}
    return gt.Budget(**target, bit_range=(4, 8), activation_bit_range=(5, 8))


class Run:
    """One process's training: begun, or gone on with from the checkpoint in the folder."""

    def __init__(self, folder: Path, case: dict[str, Any]) -> None:
        self.case, self.path = case, folder / NAME
        self.plain = case.get("route") == "state dicts"
        there = self.path.exists()
        # an undisturbed run draws its first numbers here; a resumed one has other weights and numbers until it has read its file
        seed = 100 + os.getpid() if there else 0
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        torch.manual_seed(seed)
        config, example = gt.QuantConfig(activations=True), torch.randn(2, 3, 6, 6)
        if there and not self.plain:
            self.geta = gt.GETA.resume(self.path, Net(), example)
        else:
            self.geta = gt.GETA(Net(), example, quantize=config)
            self.geta.calibrate([example])
        rules = case.get("rules", "default")
        self.optimizer = self.geta.qasso(torch.optim.AdamW, lr=1e-2, budget=budget_of(case), schedule=SCHEDULE, rules=rules)
        self.scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(self.optimizer, TOTAL)
        self.shuffle, self.best = torch.Generator().manual_seed(3), float("inf")
        if there:
            self.load()

    def save(self) -> None:
        """Everything the next step depends on, in one call or by hand."""
        if not self.plain:
            self.geta.save_checkpoint(self.path, scheduler=self.scheduler, shuffle=self.shuffle, best=self.best)
            return
        state = {
            "model": self.geta.model.state_dict(), "optimizer": self.optimizer.state_dict(), "scheduler": self.scheduler.state_dict(),
            "random": [torch.get_rng_state(), random.getstate(), np.random.get_state(legacy=False)["state"]["key"].tolist()],  # noqa: NPY002
            "position": np.random.get_state(legacy=False)["state"]["pos"],  # noqa: NPY002
            "shuffle": self.shuffle.get_state(), "best": self.best,
        }  # fmt: skip
        torch.save(state, self.path.with_suffix(".new"))
        os.replace(self.path.with_suffix(".new"), self.path)

    def load(self) -> None:
        """The inverse, in the order that torch's documentation gives: build everything, then load."""
        if not self.plain:
            self.best = self.geta.restore(scheduler=self.scheduler, shuffle=self.shuffle)["best"]
            return
        state = torch.load(self.path, weights_only=True)
        self.geta.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scheduler.load_state_dict(state["scheduler"])
        self.shuffle.set_state(state["shuffle"])
        self.best = state["best"]
        torch.set_rng_state(state["random"][0])
        random.setstate(state["random"][1])
        np.random.set_state(("MT19937", state["random"][2], state["position"]))  # noqa: NPY002

    def step(self) -> None:
        """One step; its batch comes from all four random generators."""
        labels = torch.randperm(6, generator=self.shuffle) % 3
        x = 0.3 * torch.randn(6, 3, 6, 6) + random.random() + np.random.rand()  # noqa: NPY002
        x[torch.arange(6), labels] += 1
        self.optimizer.zero_grad()
        loss = F.cross_entropy(self.geta.model(x), labels)
        loss.backward()
        self.optimizer.step()
        self.scheduler.step()
        self.best = min(self.best, loss.item())

    def digest(self) -> str:
        """Of every byte of the model, the optimizer's state, the learning rates, the best loss and the next random number."""
        state, own = self.geta.model.state_dict(), self.optimizer.state_dict()
        tensors = [*state.values(), *(v for s in own["state"].values() for v in s.values()), own["qasso"]["alive"], own["qasso"]["average"]]
        found = hashlib.sha256()
        for tensor in tensors:
            found.update(tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
        rates = [group["lr"] for group in self.optimizer.param_groups]
        rest = (list(state), rates, self.best, self.optimizer.progress(), torch.rand(3).tolist(), random.random(), float(np.random.rand()))  # noqa: NPY002
        found.update(repr(rest).encode())
        return found.hexdigest()


def arm(run: Run) -> None:
    """Set the trap: the process dies in its step ``at``, after it, or while it writes the checkpoint that follows."""
    at, where = run.case["at"], run.case["where"]

    def now() -> bool:
        return run.optimizer.steps_done >= at

    if where == "in step":  # the inner optimizer has moved the weights, nothing is projected or pruned yet
        run.optimizer.inner.register_step_post_hook(lambda *_: die() if run.optimizer.steps_done + 1 >= at else None)
    elif where == "after step":
        run.optimizer.register_step_post_hook(lambda *_: die() if now() else None)
    elif where == "half written":

        def half(tensors: dict[str, Any], path: str, metadata: dict[str, str]) -> None:
            save_file(tensors, path, metadata=metadata)
            if now():
                os.truncate(path, os.path.getsize(path) // 2)
                die()

        checkpoint.save_file = half  # type: ignore[attr-defined]
    elif where == "before rename":
        checkpoint._flush = lambda _: die() if now() else None
    else:
        raise ValueError(where)


def train(folder: Path, case: dict[str, Any], *, armed: bool) -> None:
    """Train to the end, or to the trap; ``digest`` tells that the end was reached."""
    torch.set_num_threads(1)
    run = Run(folder, case)
    if armed:
        arm(run)
    (folder / f"started.{os.getpid()}").write_text(str(run.optimizer.steps_done))
    while run.optimizer.steps_done < TOTAL:
        run.step()
        if run.optimizer.steps_done % case.get("every", 1) == 0:
            run.save()
    (folder / "digest").write_text(run.digest())


def forked(folder: Path, case: dict[str, Any], *, armed: bool) -> int:
    """Train in a process of its own; return what waitpid said."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            train(folder, case, armed=armed)
            code = 0
        finally:
            sys.stderr.flush()
            os._exit(code)
    return os.waitpid(child, 0)[1]


def serve(plan: Path) -> None:
    """For each case: die once where it says, then go on; write how each process ended, where it began, and the digest."""
    results = []
    gt.GETA(Net(), torch.randn(2, 3, 6, 6))  # the first export imports half of torch: once here, not in every process
    for number, case in enumerate(json.loads(plan.read_text())):
        folder = plan.parent / f"case{number}"
        folder.mkdir()
        ends = [forked(folder, case, armed=True)] if "where" in case else []
        ends.append(forked(folder, case, armed=False))
        started = [int(path.read_text()) for path in sorted(folder.glob("started.*"), key=lambda path: path.stat().st_mtime_ns)]
        results.append({"case": case, "ends": ends, "started": started, "digest": (folder / "digest").read_text()})
    plan.with_suffix(".results").write_text(json.dumps(results))


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(Path(sys.argv[2]))
    else:
        train(Path(sys.argv[2]), json.loads(sys.argv[3]), armed=False)
