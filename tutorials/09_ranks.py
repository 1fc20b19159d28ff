"""Tutorial 9: one rank of a run in several processes; torchrun starts it."""

import sys

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import geta_nb as gt

dist.init_process_group("gloo")
rank, world = dist.get_rank(), dist.get_world_size()
torch.manual_seed(0)
data, labels = torch.randn(64, 8), torch.arange(64) % 3
data[torch.arange(64), labels] += 2
torch.manual_seed(1)
geta = gt.GETA(nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3)), data[:2])
model = DistributedDataParallel(geta.model)
optimizer = geta.qasso(torch.optim.SGD, lr=0.1, budget=gt.Budget(0.5), schedule=gt.Schedule.for_steps(30))
for _ in range(30):
    optimizer.zero_grad()
    nn.functional.cross_entropy(model(data[rank::world]), labels[rank::world]).backward()
    optimizer.step()
torch.save((geta.model.state_dict(), optimizer.group_mask.tolist()), f"{sys.argv[1]}/rank{rank}")
dist.destroy_process_group()
