"""Tutorial 9: a training script that saves every ten steps and goes on from there. DIE_AT plays the power cut."""

import os
import sys
from pathlib import Path

import torch
from torch import nn

import geta_nb as gt

path, die_at = Path(sys.argv[1]), int(os.environ.get("DIE_AT", -1))
torch.manual_seed(0)
data, labels = torch.randn(64, 8), torch.arange(64) % 3
data[torch.arange(64), labels] += 2
torch.manual_seed(1)
model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 3))

geta = gt.GETA.resume(path, model, data[:2]) if path.exists() else gt.GETA(model, data[:2])
budget = gt.Budget(0.5, bit_range=(4, 8))
optimizer = geta.qasso(torch.optim.AdamW, lr=1e-2, budget=budget, schedule=gt.Schedule.for_steps(40))
scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 40)
if path.exists():
    geta.restore(scheduler=scheduler)

while optimizer.steps_done < 40:
    rows = torch.randperm(64)[:16]
    optimizer.zero_grad()
    nn.functional.cross_entropy(geta.model(data[rows]), labels[rows]).backward()
    optimizer.step()
    scheduler.step()
    if optimizer.steps_done == die_at:
        os._exit(9)
    if optimizer.steps_done % 10 == 0:
        geta.save_checkpoint(path, scheduler=scheduler)
torch.save(geta.model.state_dict(), path.with_suffix(".end"))
