"""One run of a pipeline: its folder, its settings, and checkpoints from which it goes on when it was killed.

In: parameters of a notebook. Out: trained networks, and the files of the folder. Checkpoints lie in a folder of their own for each set of
parameters, so a run with other ones never continues this one; they are removed when the report is written.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from torch import nn
from tqdm import tqdm

from geta_nb.bench.jobs import write_json
from geta_nb.budget import Budget
from geta_nb.config import QuantConfig
from geta_nb.errors import InputError
from geta_nb.files import checkpoint
from geta_nb.geta import GETA
from geta_nb.pipelines.batches import to_device
from geta_nb.pipelines.decay import find_decay
from geta_nb.pipelines.loop import Task, evaluating, train_steps
from geta_nb.qasso import QASSO

SNAPSHOTS = 300
"""How many snapshots of a run are kept for its picture."""

History = list[dict[str, Any]]


class Run:
    """The folder and the state of one run.

    Args:
        output_dir: where everything goes; made when it is not there.
        smoke: a run of seconds, in one thread.
        seed: of initial weights, order, augmentation and dropout.
        data_dir: the real data; "": a stand-in.
        **settings: all other parameters of the notebook; a run with other ones does not continue this one.

    Attributes:
        folder: the output folder.
        data_dir: the real data's folder, or None.
        device: a GPU where there is one, else the CPU.
        save_seconds: a checkpoint is written at the end of each epoch, and after so many seconds inside one.

    Raises:
        InputError: ``data_dir`` is not a folder.
    """

    save_seconds = 120.0

    def __init__(self, output_dir: str | Path, *, smoke: bool = False, seed: int = 0, data_dir: str | Path = "", **settings: Any) -> None:
        if str(data_dir) and not Path(data_dir).is_dir():
            raise InputError("Run: data_dir is not a folder.", at=data_dir, expected="the folder of the real data, or '' for the stand-in")
        self.folder, self.seed, self.smoke = Path(output_dir), seed, smoke
        self.data_dir = Path(data_dir) if str(data_dir) else None
        self.settings: dict[str, Any] = {"smoke": smoke, "seed": seed, "stand_in": not str(data_dir), **settings}
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.folder.mkdir(parents=True, exist_ok=True)
        if smoke:
            torch.set_num_threads(1)  # so small a run only waits for a second thread
        torch.manual_seed(seed)

    def __repr__(self) -> str:
        data = "stand-in data" if self.stand_in else "the data in data_dir"
        goes_on = f"; goes on from {self.checkpoints.name}" if self.checkpoints.is_dir() else ""
        return f"Run(seed {self.seed}, {data}, on {self.device.type}{', smoke' if self.smoke else ''}{goes_on})"

    @property
    def stand_in(self) -> bool:
        """Whether the real data were not given."""
        return self.data_dir is None

    @property
    def remark(self) -> str:
        """What a picture of this run says of itself: that its data stand in, that it was too short to mean anything; "" for neither."""
        if self.smoke:
            return f"{'stand-in data, ' if self.stand_in else ''}a smoke run of seconds: the figures mean nothing"
        return "stand-in data" if self.stand_in else ""

    @property
    def checkpoints(self) -> Path:
        """Folder of the checkpoints of exactly these settings."""
        call = json.dumps([self.settings, str(self.data_dir), torch.__version__], sort_keys=True, default=str)
        return self.folder / "checkpoints" / hashlib.sha256(call.encode()).hexdigest()[:12]

    def geta(
        self,
        name: str,
        model: nn.Module,
        example_inputs: Any,
        *,
        quantize: QuantConfig | None = QuantConfig(),  # noqa: B008 - frozen
        calibrate: Iterable[Any] = (),
        **options: Any,
    ) -> GETA:
        """Return the ``GETA`` of a model: as it was when the run was killed, else a new one, calibrated where activations are quantized.

        Args:
            name: of this training inside the run.
            calibrate: batches in the form of ``example_inputs``.
            **options: ``example_kwargs``, and for a new one whatever else ``GETA`` takes.
        """
        model.to(self.device)
        inputs = to_device(example_inputs, self.device)
        options["example_kwargs"] = to_device(options.get("example_kwargs"), self.device)
        file = self._file(name)
        if file.exists():
            return GETA.resume(file, model, inputs, example_kwargs=options["example_kwargs"])
        geta = GETA(model, inputs, quantize=quantize, **options)
        geta.calibrate(to_device(batch, self.device) for batch in calibrate)
        return geta

    def train(
        self,
        name: str,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        task: Task,
        *,
        epochs: int,
        decay: str = "cosine",
        geta: GETA | None = None,
        workers: int = 0,
    ) -> History:
        """Train a model in place, from where it was killed if it was, and return snapshots for ``training_picture``.

        Args:
            name: of this training inside the run, a file name.
            optimizer: of ``geta.qasso`` when ``geta`` is given, else any.
            decay: ``"cosine"``, ``"linear"`` or ``"thirds"`` of the learning rate.
            workers: processes that prepare batches.
        """
        model.to(self.device)
        steps, per_epoch = epochs * task.batches.steps_per_epoch, task.batches.steps_per_epoch
        first = optimizer.steps_done if isinstance(optimizer, QASSO) else self._restore(name, model, optimizer)
        history = self._history(name, first)
        every, saved = max(1, steps // SNAPSHOTS), time.monotonic()
        # plain text, not a widget: an executed notebook then keeps how far it got, and a terminal can follow it
        with tqdm(total=steps, initial=first, desc=name, unit="step", mininterval=2) as bar:
            for done, loss in train_steps(
                model, optimizer, task, first=first, steps=steps, decay=find_decay(decay), device=self.device, workers=workers
            ):
                bar.update()
                epoch_ends = done % per_epoch == 0
                if done % every == 0 or epoch_ends:
                    history.append(_snapshot(optimizer, done, loss, history) | (measure(model, task.evaluate) if epoch_ends else {}))
                    bar.set_postfix_str(f"{history[-1]['stage']} loss {history[-1]['loss']:.3g}", refresh=False)
                if epoch_ends or time.monotonic() - saved > self.save_seconds:
                    self._save(name, model, optimizer, done, history, geta)
                    saved = time.monotonic()
        return history

    def _file(self, name: str) -> Path:
        return self.checkpoints / f"{name}.safetensors"

    def _save(self, name: str, model: nn.Module, optimizer: torch.optim.Optimizer, step: int, history: History, geta: GETA | None) -> None:
        """Write history, then state: a history that is ahead of its state is cut when the run goes on."""
        self.checkpoints.mkdir(parents=True, exist_ok=True)
        write_json(self.checkpoints / f"{name}.json", history)
        if geta is not None:
            geta.save_checkpoint(self._file(name))
        else:
            checkpoint.write(self._file(name), {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": step})

    def _restore(self, name: str, model: nn.Module, optimizer: torch.optim.Optimizer) -> int:
        if not self._file(name).exists():
            return 0
        state = checkpoint.read(self._file(name))
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        return int(state["step"])

    def _history(self, name: str, first: int) -> History:
        file = self.checkpoints / f"{name}.json"
        history: History = json.loads(file.read_text()) if file.exists() else []
        return [snapshot for snapshot in history if snapshot["step"] <= first]

    def finish(self) -> None:
        """Remove the checkpoints of these settings: the run is done."""
        shutil.rmtree(self.checkpoints, ignore_errors=True)
        if self.checkpoints.parent.is_dir() and not any(self.checkpoints.parent.iterdir()):
            self.checkpoints.parent.rmdir()


def measure(model: nn.Module, evaluate: Callable[[nn.Module], dict[str, float]]) -> dict[str, float]:
    """Return the measures of a model, without gradients and in evaluation mode; its modes are as they were afterwards."""
    with evaluating(model):
        return evaluate(model)


def _snapshot(optimizer: torch.optim.Optimizer, done: int, loss: torch.Tensor, history: History) -> dict[str, Any]:
    progress: dict[str, Any] = optimizer.progress() if isinstance(optimizer, QASSO) else {"step": done, "stage": "dense"}
    plan = progress.get("plan")
    # a plan is kept where it is new: between two of them it would fill the file with itself
    told = plan is not None and any((record.get("plan") or {}).get("step") == plan["step"] for record in reversed(history))
    return progress | {"loss": float(loss)} | ({"plan": None} if told else {})


def describe_budget(budget: Budget) -> str:
    """Return the target of a budget in words: ``"sparsity 35 %"``."""
    if budget.target is None:
        return f"sparsity {100 * (budget.group_sparsity or 0):g} %"
    name, value = budget.target
    return f"relative BOPs {100 * value:g} %" if name == "relative_bops" else f"{value / 1000:g} kB"
