"""A training script that was written for wandb: its import line alone was changed.

Run it with ``python examples/dropin_wandb.py``. Then look at

    foundry-fastlog runs .
"""

import argparse

import torch

import foundry_fastlog.integrations.wandb as wandb  # was: import wandb

parser = argparse.ArgumentParser()
parser.add_argument("--steps", type=int, default=50)
parser.add_argument("--lr", type=float, default=0.05)
config = vars(parser.parse_args())

torch.manual_seed(0)
model = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.Tanh(), torch.nn.Linear(16, 1))
optimizer = torch.optim.AdamW(model.parameters(), lr=config["lr"])
data = torch.randn(256, 8)
target = data.sin().sum(dim=1, keepdim=True)

run = wandb.init(project="tiny", name="mlp", config=config, tags=["example"])
wandb.config.update({"parameters": sum(p.numel() for p in model.parameters())})
wandb.define_metric("val/loss", summary="min")

best = float("inf")
for step in range(config["steps"]):
    batch = torch.randint(len(data), (32,))
    loss = torch.nn.functional.mse_loss(model(data[batch]), target[batch])
    optimizer.zero_grad()
    loss.backward()
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    if step % 10 == 0:
        with torch.no_grad():
            val_loss = torch.nn.functional.mse_loss(model(data), target).item()
        best = min(best, val_loss)
        wandb.log({"val": {"loss": val_loss, "best": best}}, step=step)
    wandb.log({"train/loss": loss.item(), "grad_norm": norm.item()}, step=step)
wandb.log({"weights": wandb.Histogram([p.norm().item() for p in model.parameters()])})
wandb.summary["best"] = best
wandb.finish()
