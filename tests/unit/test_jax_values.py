"""Scalars of JAX: what docs/device_scalars.md says of them, with the real one, on two CPUs."""

from __future__ import annotations

import json
import math
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from recorded import run_python

SCRIPT = """
import json, sys
import jax, jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from foundry_fastlog import Recorder, read_run

def refused(value, name="x"):
    try:
        recorder.record_dict(0, {name: value})
    except TypeError as error:
        return str(error)

said = {}
with Recorder(sys.argv[1], on_bad_value="drop") as recorder:
    values = {"loss": jnp.float32(2.5), "half": jnp.bfloat16(1.5), "n": jnp.int32(3)}
    values |= {"ok": jnp.bool_(True), "one": jnp.ones((1, 1)), "bad": jnp.float32("nan")}
    recorder.record_dict(1, values)
    said["many"], said["complex"] = refused(jnp.ones(3)), refused(jnp.complex64(1))
    said["traced"] = []
    jax.jit(lambda x: said["traced"].append(refused(x)) or x)(jnp.float32(1))
    recorder.log({"loss": jnp.float32(0.5), "many": jnp.ones(3)}, step=2)

    mesh = Mesh(jax.devices(), "d")
    shared = jax.device_put(jnp.float32(4.0), NamedSharding(mesh, PartitionSpec()))
    said["shared"] = refused(shared)
    recorder.log({"shared": shared, "read": float(shared)}, step=3)

    given = jnp.float32(1.0)
    given.delete()  # as jit does with what is donated to it
    said["deleted"] = refused(given)
lines = [line for line in read_run(sys.argv[1]).lines("metrics")]
kept = [[line["step"], line["metrics"], line.get("missing")] for line in lines]
print(json.dumps([kept, said]))
"""


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Any:
    if find_spec("jax") is None:
        pytest.skip("jax is not installed")
    flags = {"XLA_FLAGS": "--xla_force_host_platform_device_count=2", "JAX_PLATFORMS": "cpu"}
    run: Path = tmp_path_factory.mktemp("jax")
    return json.loads(run_python(SCRIPT, run, environment=flags, timeout=240).stdout)


def test_scalars_on_the_cpu_are_recorded(found: Any) -> None:
    step, values, missing = found[0][0]
    assert math.isnan(values.pop("bad"))
    assert (step, missing) == (1, None)
    assert values == {"loss": 2.5, "half": 1.5, "n": 3, "ok": True, "one": 1.0}


def test_what_is_no_scalar_is_refused_and_left_out_by_log(found: Any) -> None:
    (_, said) = found
    assert "pass a scalar such as value.mean()" in said["many"]
    assert "does not take" in said["complex"]
    assert "reading it failed" in said["traced"][0]
    assert "reading it failed" in said["deleted"]
    assert found[0][1] == [2, {"loss": 0.5, "many": None}, {"many": "unsupported"}]


def test_one_that_lies_on_several_devices_is_read_by_float(found: Any) -> None:
    assert found[1]["shared"] is not None
    assert found[0][2] == [3, {"shared": None, "read": 4.0}, {"shared": "unsupported"}]
