"""torchtitan: what its trainer does with loggers, in a loop as short as possible.

Run it with ``python examples/train_torchtitan.py``. Then look at

    foundry-fastlog summary outputs/fastlog
"""

import os

import torch
from torchtitan.components.metrics import LoggerContainer
from torchtitan.observability.structured_logger import init_structured_logger, log_trace_span

from foundry_fastlog.integrations.torchtitan import FastlogLogger

os.environ["TITAN_STRUCT_LOGGER_HANDLERS"] = (
    "foundry_fastlog.integrations.torchtitan.add_trace_handler"
)
init_structured_logger(source="trainer", output_dir="outputs")
container = LoggerContainer()  # trainer.metrics_processor.logger
container.add_logger(FastlogLogger("outputs/fastlog", config={"lr": 0.1}))
layer = torch.nn.Linear(2, 1)
optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
for step in range(1, 31):
    with log_trace_span("fwd_bwd"):
        loss = layer(torch.ones(8, 2)).square().mean()
        loss.backward()
    with log_trace_span("optim"):
        optimizer.step()
        optimizer.zero_grad()
    container.log({"loss": loss.detach()}, step)
container.close()
