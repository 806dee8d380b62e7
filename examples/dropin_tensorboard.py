"""A training script that was written for TensorBoard: its import line alone was changed.

Run it with ``python examples/dropin_tensorboard.py``. Then look at

    foundry-fastlog summary runs/mlp
"""

import argparse

import torch

# was: from torch.utils.tensorboard import SummaryWriter
from foundry_fastlog.integrations.tensorboard import SummaryWriter

parser = argparse.ArgumentParser()
parser.add_argument("--steps", type=int, default=50)
parser.add_argument("--log-dir", default="runs/mlp")
arguments = parser.parse_args()

torch.manual_seed(0)
model = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.Tanh(), torch.nn.Linear(16, 1))
optimizer = torch.optim.AdamW(model.parameters(), lr=0.05)
data = torch.randn(256, 8)
target = data.sin().sum(dim=1, keepdim=True)

writer = SummaryWriter(arguments.log_dir)
for step in range(arguments.steps):
    batch = torch.randint(len(data), (32,))
    loss = torch.nn.functional.mse_loss(model(data[batch]), target[batch])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    writer.add_scalar("train/loss", loss, step)
    if step % 10 == 0:
        norms = {name.replace(".", "_"): p.grad.norm() for name, p in model.named_parameters()}
        writer.add_scalars("grad_norm", norms, step)
        writer.add_histogram("weights", model[0].weight, step)
writer.add_text("note", "trained", arguments.steps)
writer.add_hparams({"lr": 0.05, "width": 16}, {"final": loss.item()})
writer.close()
