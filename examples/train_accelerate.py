"""Accelerate: a loop of one's own, on as many processes as `accelerate launch` starts.

Run it with ``accelerate launch examples/train_accelerate.py``. Then look at

    foundry-fastlog summary runs/accelerate/line
"""

import torch
from accelerate import Accelerator

from foundry_fastlog.integrations.accelerate import FastlogTracker

accelerator = Accelerator(log_with=FastlogTracker("runs/accelerate"), cpu=True)
accelerator.init_trackers("line", config={"lr": 0.1})
layer = torch.nn.Linear(2, 1)
model, optimizer = accelerator.prepare(layer, torch.optim.SGD(layer.parameters(), lr=0.1))
for step in range(30):
    loss = model(torch.ones(8, 2)).square().mean()
    accelerator.backward(loss)
    optimizer.step()
    optimizer.zero_grad()
    accelerator.log({"train/loss": loss.detach()}, step=step)
accelerator.end_training()
