"""Fabric: a loop of one's own.

Run it with ``python examples/train_fabric.py``. Then look at

    foundry-fastlog summary runs/fabric
"""

import torch
from lightning import Fabric

from foundry_fastlog.integrations.lightning import FastlogLogger

with FastlogLogger("runs/fabric") as logger:
    fabric = Fabric(accelerator="cpu", devices=1, loggers=logger)
    logger.log_hyperparams({"lr": 0.1})
    layer = torch.nn.Linear(2, 1)
    model, optimizer = fabric.setup(layer, torch.optim.SGD(layer.parameters(), lr=0.1))
    for step in range(30):
        loss = model(torch.ones(8, 2)).square().mean()
        fabric.backward(loss)
        optimizer.step()
        optimizer.zero_grad()
        fabric.log("train/loss", loss.detach(), step=step)
