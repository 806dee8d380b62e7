"""DDP: each rank records in the same run, which readers show as one.

Run it with ``torchrun --standalone --nproc-per-node 2 examples/train_ddp.py``. Then look at

    foundry-fastlog summary runs/ddp --ranks
    foundry-fastlog plot runs/ddp -m loss --ranks
"""

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from foundry_fastlog import Recorder

dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
rank, size = dist.get_rank(), dist.get_world_size()
device = torch.device("cpu")
if torch.cuda.is_available():
    device = torch.device("cuda", rank % torch.cuda.device_count())
    torch.cuda.set_device(device)

torch.manual_seed(0)  # the same weights and data on each rank
data = torch.randn(512, 8, device=device)
target = data.sin().sum(dim=1, keepdim=True)
layers = torch.nn.Sequential(torch.nn.Linear(8, 32), torch.nn.Tanh(), torch.nn.Linear(32, 1))
model = DistributedDataParallel(layers.to(device))
optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)

# Rank and world size are torchrun's: nothing has to be passed, and all ranks are one start.
with Recorder("runs/ddp", config={"lr": 3e-3, "ranks": size}) as recorder:
    for step in range(30):
        batch = torch.arange(step * size * 8 + rank, (step + 1) * size * 8, size) % len(data)
        with recorder.timer("step", step=step):
            loss = torch.nn.functional.mse_loss(model(data[batch]), target[batch])
            optimizer.zero_grad()
            loss.backward()  # waits for the other ranks' gradients
            optimizer.step()
        recorder.record(step, loss=loss)  # of this rank's own batch
        if step % 10 == 9:
            mean = loss.detach().clone()
            dist.all_reduce(mean)  # every rank takes part ...
            if rank == 0:  # ... and one records
                recorder.record(step, mean_loss=mean / size)
dist.destroy_process_group()
