"""Ray Tune: a run for each of three learning rates, `runs/sweep/TRIAL`.

Run it with ``python examples/train_ray.py``. Then look at

    foundry-fastlog runs runs/sweep --sort last.loss
"""

from pathlib import Path

import ray
from ray import tune

from foundry_fastlog.integrations.ray import FastlogLoggerCallback


def train(config: dict[str, float]) -> None:
    """Report the loss of ten steps."""
    weight = 1.0
    for _ in range(10):
        weight -= config["lr"] * 2 * weight
        tune.report({"loss": weight**2})


here = Path.cwd()
ray.init(num_cpus=2, include_dashboard=False)
tune.Tuner(
    train,
    param_space={"lr": tune.grid_search([0.01, 0.1, 0.4])},
    run_config=tune.RunConfig(
        storage_path=str(here / "ray"), callbacks=[FastlogLoggerCallback(here / "runs" / "sweep")]
    ),
).fit()
