"""Lightning: a line is fitted, validated, and validated once more.

Run it with ``python examples/train_lightning.py``. Then look at

    foundry-fastlog plot runs/lightning -m '*loss'
"""

import torch
from lightning import LightningModule, Trainer
from torch.utils.data import DataLoader

from foundry_fastlog.integrations.lightning import FastlogLogger


class Line(LightningModule):
    """Finds the sum of two numbers."""

    def __init__(self, lr: float = 0.1) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.layer = torch.nn.Linear(2, 1)

    def training_step(self, batch: torch.Tensor, index: int) -> torch.Tensor:
        """Return the loss of a batch."""
        loss = (self.layer(batch).squeeze() - batch.sum(dim=1)).square().mean()
        self.log("train/loss", loss)
        return loss

    def validation_step(self, batch: torch.Tensor, index: int) -> None:
        """Log the loss of a batch."""
        loss = (self.layer(batch).squeeze() - batch.sum(dim=1)).square().mean()
        self.log("val/loss", loss)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return the optimizer."""
        return torch.optim.SGD(self.parameters(), lr=self.hparams["lr"])


model = Line()
data = DataLoader(torch.randn(80, 2), batch_size=8)
with FastlogLogger("runs/lightning") as logger:
    trainer = Trainer(logger=logger, max_epochs=3, log_every_n_steps=1, accelerator="cpu")
    trainer.fit(model, data, data)
    trainer.validate(model, data)
