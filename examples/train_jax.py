"""JAX: values are recorded a step late, so that the next step is under way when they are read.

Run it with ``python examples/train_jax.py``. Then look at

    foundry-fastlog summary runs/jax
    foundry-fastlog plot runs/jax -m loss
"""

import jax
import jax.numpy as jnp

from foundry_fastlog import Recorder

Parameters = dict[str, jax.Array]
STEPS, RATE = 60, 0.05


def loss_of(parameters: Parameters, x: jax.Array, y: jax.Array) -> jax.Array:
    """Return the mean squared error of a small network."""
    hidden = jnp.tanh(x @ parameters["in"])
    return jnp.mean((hidden @ parameters["out"] - y) ** 2)


@jax.jit
def train_step(
    parameters: Parameters, x: jax.Array, y: jax.Array
) -> tuple[Parameters, dict[str, jax.Array]]:
    """Return what a step of gradient descent makes of the parameters, and its figures."""
    loss, gradient = jax.value_and_grad(loss_of)(parameters, x, y)
    norm = jnp.sqrt(sum(jnp.sum(one**2) for one in jax.tree.leaves(gradient)))
    parameters = jax.tree.map(lambda one, slope: one - RATE * slope, parameters, gradient)
    return parameters, {"loss": loss, "grad_norm": norm}


first, second, third = jax.random.split(jax.random.key(0), 3)
x = jax.random.normal(first, (256, 8))
y = jnp.sin(x).sum(axis=1, keepdims=True)
parameters = {
    "in": jax.random.normal(second, (8, 32)) / 8**0.5,
    "out": jax.random.normal(third, (32, 1)) / 32**0.5,
}

with Recorder("runs/jax", config={"lr": RATE, "backend": jax.default_backend()}) as recorder:
    # In a jitted function there are no values to record; what it returns has them.
    before: dict[str, jax.Array] = {}
    for step in range(STEPS):
        with recorder.timer("step", step=step):  # of the host: JAX returns before the work is done
            parameters, figures = train_step(parameters, x, y)
        if before:
            recorder.record_dict(step - 1, {name: float(one) for name, one in before.items()})
        before = figures
    recorder.record_dict(STEPS - 1, {name: float(one) for name, one in before.items()})
