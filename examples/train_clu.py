"""CLU: what a JAX training writes to its metric writers is recorded as well.

Run it with ``python examples/train_clu.py``. Then look at

    foundry-fastlog plot runs/clu -m loss
"""

import jax
from clu import metric_writers

from foundry_fastlog.integrations.clu import FastlogWriter

gradient = jax.jit(jax.value_and_grad(lambda weight, x: ((x @ weight - 1.0) ** 2).mean()))
weight = jax.numpy.zeros(3)
data = jax.random.normal(jax.random.key(0), (32, 3))

with FastlogWriter("runs/clu") as fastlog:
    writer = metric_writers.MultiWriter([fastlog, metric_writers.LoggingWriter()])
    writer.write_hparams({"lr": 0.1})
    for step in range(30):
        loss, grads = gradient(weight, data)
        weight -= 0.1 * grads
        writer.write_scalars(step, {"loss": loss})
    writer.flush()
