"""Other people's training loops, really run: Hugging Face's Trainer, accelerate and Lightning end with constraints met and a subnet.

Everything they write goes under tmp_path, and they report to nobody.
"""

from __future__ import annotations

import copy
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

import geta_nb as gt
from geta_nb.errors import GetaWarning, NonFiniteError
from tests.small_nets import evaluate
from tests.zoo.laws import RTOL

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]
STEPS = 70
OPTIONS: dict[str, Any] = {
    "lr": 2e-2,
    "budget": gt.Budget(0.5, bit_range=(4, 8), activation_bit_range=(6, 8)),
    "schedule": gt.Schedule(2, 10, 3, 16, 4, 3, joint_start=8),
}


class Net(nn.Module):
    """A convolution and two linear layers; gives the loss too where labels come along, as Hugging Face's models do."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.hidden, self.head = nn.Linear(8, 16), nn.Linear(16, 3)

    def forward(self, x: Tensor, labels: Tensor | None = None) -> dict[str, Tensor]:
        logits = self.head(F.gelu(self.hidden(F.relu(self.norm(self.conv(x))).mean((2, 3)))))
        return {"logits": logits} if labels is None else {"loss": F.cross_entropy(logits, labels), "logits": logits}


class Images(Dataset[dict[str, Tensor]]):
    """96 images whose class is the brightest channel; one of them can be poisoned."""

    def __init__(self, poisoned: int | None = None) -> None:
        draw = torch.Generator().manual_seed(0)
        self.labels = torch.arange(96) % 3
        self.x = 0.3 * torch.randn(96, 3, 6, 6, generator=draw)
        self.x[torch.arange(96), self.labels] += 1
        if poisoned is not None:
            self.x[poisoned] = math.nan

    def __len__(self) -> int:
        return 96

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {"x": self.x[index], "labels": self.labels[index]}


@pytest.fixture(autouse=True)
def silent(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """No reports, no hub, no files beside tmp_path, and none of accelerate's global state left behind."""
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    for name in ("HF_HUB_OFFLINE", "HF_HUB_DISABLE_TELEMETRY", "DISABLE_TELEMETRY", "WANDB_DISABLED"):
        monkeypatch.setenv(name, "1")
    monkeypatch.chdir(tmp_path)
    before = dict(os.environ)
    yield
    from accelerate.state import AcceleratorState, GradientState

    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()
    for name in set(os.environ) - set(before):
        del os.environ[name]


def compressed(model: nn.Module | None = None) -> gt.GETA:
    torch.manual_seed(0)
    geta = gt.GETA(model or Net(), Images().x[:4], quantize=gt.QuantConfig(activations=True))
    geta.calibrate([Images().x])
    return geta


def check(geta: gt.GETA, optimizer: gt.QASSO, *, steps: int = STEPS, net: nn.Module | None = None) -> None:
    assert optimizer.steps_done == steps and optimizer.stage == "cool-down"
    assert geta.group_sparsity() == 0.5 == 1 - optimizer.group_mask.mean()
    assert all(type(bits) is int and 4 <= bits <= 8 for bits in geta.bit_widths().values())
    assert all(type(bits) is int and 6 <= bits <= 8 for bits in geta.activation_bit_widths().values())
    x = Images().x.double()
    twin = gt.GETA(copy.deepcopy(net or geta.model).double(), x[:4], quantize=geta.config)
    subnet = twin.construct_subnet()
    (masked,), (cut,) = evaluate(twin.model, x), evaluate(subnet, x)
    torch.testing.assert_close(cut, masked, rtol=0, atol=RTOL * float(masked.abs().max()))
    assert sum(p.numel() for p in subnet.parameters()) < sum(p.numel() for p in Net().parameters())
    # of 96 guesses among three, 58 right ones happen once in ten million
    assert float((masked.argmax(1) == Images().labels).double().mean()) > 0.6, "it did not learn"
    report = geta.report(geta.construct_subnet()).to_dict()
    assert report["group_sparsity"] == report["target_group_sparsity"]


def hf_trainer(geta: gt.GETA, optimizer: gt.QASSO, folder: Path, data: Images | None = None, **options: Any) -> Any:
    from transformers import Trainer, TrainingArguments

    arguments = TrainingArguments(
        output_dir=str(folder), max_steps=STEPS, per_device_train_batch_size=8, gradient_accumulation_steps=2, use_cpu=True, report_to=[],
        disable_tqdm=True, logging_strategy="no", dataloader_pin_memory=False, remove_unused_columns=False,
        **({"save_strategy": "no"} | options),
    )  # fmt: skip
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    return Trainer(model=geta.model, args=arguments, train_dataset=data or Images(), optimizers=(optimizer, scheduler))


@pytest.mark.parametrize("bf16", [False, True])
def test_hugging_faces_trainer_trains_with_it(bf16: bool, tmp_path: Path) -> None:
    geta = compressed()
    optimizer = geta.qasso(torch.optim.AdamW, **OPTIONS)
    hf_trainer(geta, optimizer, tmp_path, bf16=bf16).train()
    check(geta, optimizer)


def test_hugging_faces_trainer_resumes_from_its_own_checkpoint_with_the_same_bytes(tmp_path: Path) -> None:
    ends = []
    for resume in (False, True):
        geta = compressed()
        optimizer = geta.qasso(torch.optim.AdamW, **OPTIONS)
        trainer = hf_trainer(geta, optimizer, tmp_path, save_strategy="steps", save_steps=15)
        trainer.train(resume_from_checkpoint=str(tmp_path / "checkpoint-15") if resume else None)
        check(geta, optimizer)
        ends.append({name: value.clone() for name, value in geta.model.state_dict().items()})
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])


def test_nan_in_hugging_faces_trainer_is_named(tmp_path: Path) -> None:
    geta = compressed()
    optimizer = geta.qasso(torch.optim.AdamW, **OPTIONS)
    with pytest.raises(NonFiniteError, match=r"conv\.weight, step \d"):
        hf_trainer(geta, optimizer, tmp_path, Images(poisoned=5), max_grad_norm=0.0).train()


@pytest.mark.parametrize("precision", ["no", "bf16"])
def test_accelerate_trains_with_it(precision: str, tmp_path: Path) -> None:
    from accelerate import Accelerator

    geta = compressed()
    optimizer = geta.qasso(torch.optim.SGD, **(OPTIONS | {"lr": 0.1}), momentum=0.9)
    accelerator = Accelerator(cpu=True, mixed_precision=precision, gradient_accumulation_steps=2)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, [g["lr"] for g in optimizer.param_groups], total_steps=STEPS + 1)
    loader = DataLoader(Images(), batch_size=8, shuffle=True)
    model, wrapped, loader, scheduler = accelerator.prepare(geta.model, optimizer, loader, scheduler)
    while optimizer.steps_done < STEPS:
        for batch in loader:
            with accelerator.accumulate(model):
                accelerator.backward(model(**batch)["loss"])
                if accelerator.sync_gradients:
                    accelerator.clip_grad_norm_(model.parameters(), 1.0)
                wrapped.step()
                scheduler.step()
                wrapped.zero_grad()
            if optimizer.steps_done == STEPS:
                break
        if optimizer.steps_done == 12:  # inside the joint stage; loading what was saved changes nothing
            accelerator.save_state(str(tmp_path / "state"))
            accelerator.load_state(str(tmp_path / "state"))
    check(geta, optimizer)


def test_nan_under_accelerate_is_named() -> None:
    from accelerate import Accelerator

    geta = compressed()
    optimizer = geta.qasso(torch.optim.AdamW, **OPTIONS)
    accelerator = Accelerator(cpu=True)
    model, wrapped = accelerator.prepare(geta.model, optimizer)
    accelerator.backward(model(Images(poisoned=0).x[:4], Images().labels[:4])["loss"])
    with pytest.raises(NonFiniteError, match=r"conv\.weight, step 0"):
        wrapped.step()
    assert optimizer.steps_done == 0


def lightning_trainer(tmp_path: Path, **options: Any) -> Any:
    from lightning.pytorch import Trainer

    return Trainer(
        max_steps=STEPS, accelerator="cpu", devices=1, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, default_root_dir=tmp_path, gradient_clip_val=1.0, **options,
    )  # fmt: skip


def lightning_module(geta: gt.GETA) -> Any:
    from lightning.pytorch import LightningModule

    class Module(LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = geta.model

        def training_step(self, batch: dict[str, Tensor], _: int) -> Tensor:
            return self.net(**batch)["loss"]

        def configure_optimizers(self) -> Any:
            optimizer = geta.qasso(torch.optim.AdamW, **OPTIONS)
            return [optimizer], [{"scheduler": torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS), "interval": "step"}]

    return Module()


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_lightning_trains_with_it(precision: str, tmp_path: Path) -> None:
    geta = compressed()
    trainer = lightning_trainer(tmp_path, precision=precision, accumulate_grad_batches=2)
    trainer.fit(lightning_module(geta), DataLoader(Images(), batch_size=8, shuffle=True))
    check(geta, trainer.optimizers[0])


def test_a_lightning_module_is_compressed_itself(tmp_path: Path) -> None:
    from lightning.pytorch import LightningModule

    class Module(LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = Net()

        def forward(self, x: Tensor) -> Tensor:
            return self.net(x)["logits"]

        def training_step(self, batch: dict[str, Tensor], _: int) -> Tensor:
            return F.cross_entropy(self(batch["x"]), batch["labels"])

        def configure_optimizers(self) -> Any:
            return optimizer

    geta = compressed(Module())
    optimizer = geta.qasso(torch.optim.AdamW, **OPTIONS)
    lightning_trainer(tmp_path).fit(geta.model, DataLoader(Images(), batch_size=16, shuffle=True))
    check(geta, optimizer, net=geta.model.net)


def held(geta: gt.GETA, optimizer: gt.QASSO) -> None:
    """Averaged weights stand in the model: said by ``construct_subnet``, and mended by ``hold``."""
    with pytest.warns(GetaWarning, match=r"optimizer\.hold\(\)"):
        geta.construct_subnet()
    optimizer.hold()
    check(geta, optimizer)


def test_an_average_that_a_callback_keeps_in_hugging_faces_trainer_is_held(tmp_path: Path) -> None:
    from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
    from transformers import TrainerCallback

    geta = compressed()
    optimizer = geta.qasso(torch.optim.AdamW, **OPTIONS)
    averaged = AveragedModel(geta.model, multi_avg_fn=get_ema_multi_avg_fn(0.9), use_buffers=True)

    class Average(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            averaged.update_parameters(geta.model)

    trainer = hf_trainer(geta, optimizer, tmp_path)
    trainer.add_callback(Average())
    trainer.train()
    geta.model.load_state_dict(averaged.module.state_dict())
    held(geta, optimizer)


def test_lightnings_averaged_weights_are_held(tmp_path: Path) -> None:
    from lightning.pytorch.callbacks import EMAWeightAveraging

    geta = compressed()
    trainer = lightning_trainer(tmp_path, callbacks=[EMAWeightAveraging(decay=0.9)])
    trainer.fit(lightning_module(geta), DataLoader(Images(), batch_size=8, shuffle=True))
    held(geta, trainer.optimizers[0])
