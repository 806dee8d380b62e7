"""PyTorch: a loop of one's own, with validation, timings and checkpoints to go on from.

Run it with ``python examples/train_torch.py``, and again to resume it. Then look at

    foundry-fastlog summary runs/torch
    foundry-fastlog plot runs/torch -m '*loss'
"""

from pathlib import Path

import torch

from foundry_fastlog import Recorder

EPOCHS, BATCH, CHECKPOINT = 3, 32, Path("runs/torch/checkpoint.pt")
device = "cuda" if torch.cuda.is_available() else "cpu"
torch.manual_seed(0)
data = torch.randn(512, 8, device=device)
target = data.sin().sum(dim=1, keepdim=True)
held_out = torch.randn(128, 8, device=device)

model = torch.nn.Sequential(torch.nn.Linear(8, 32), torch.nn.Tanh(), torch.nn.Linear(32, 1))
model.to(device)
optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
step = first = 0
if CHECKPOINT.exists():
    saved = torch.load(CHECKPOINT, weights_only=True)
    model.load_state_dict(saved["model"])
    optimizer.load_state_dict(saved["optimizer"])
    step, first = saved["step"], saved["epoch"]

with Recorder("runs/torch", config={"lr": 3e-3, "batch": BATCH, "device": device}) as recorder:
    for epoch in range(first, first + EPOCHS):
        for batch in torch.randperm(len(data), device=device).split(BATCH):
            with recorder.timer("step", step=step):
                with recorder.timer("forward"):
                    loss = torch.nn.functional.mse_loss(model(data[batch]), target[batch])
                with recorder.timer("backward"):
                    optimizer.zero_grad()
                    loss.backward()
                norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
            # Tensors as they are: also on a GPU nothing waits for them.
            recorder.record(step, epoch=epoch, loss=loss, grad_norm=norm)
            step += 1
        with torch.no_grad():
            error = model(held_out) - held_out.sin().sum(dim=1, keepdim=True)
        recorder.record(step - 1, epoch=epoch, val_loss=error.square().mean())
        state = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
        torch.save({**state, "step": step, "epoch": epoch + 1}, CHECKPOINT)
        recorder.event("Checkpoint saved", step=step - 1, context={"path": str(CHECKPOINT)})
