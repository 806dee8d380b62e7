"""The example of docs/device_scalars.md runs as it stands: on the CPU and on a GPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from foundry_fastlog import Recorder, read_run

torch: Any = pytest.importorskip("torch")

PAGE = Path(__file__).parents[2] / "docs" / "device_scalars.md"


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_the_example_runs(device: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every step is recorded with its tensors, and its block is timed."""
    code = PAGE.read_text(encoding="utf-8").partition("```python\n")[2].partition("```")[0]
    assert Recorder.__name__ in code
    monkeypatch.chdir(tmp_path)
    model = torch.nn.Linear(4, 1, device=device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    names = {
        "torch": torch,
        "model": model,
        "optimizer": optimizer,
        "batches": [torch.randn(8, 4, device=device) for _ in range(5)],
        "scheduler": torch.optim.lr_scheduler.ConstantLR(optimizer),
    }
    exec(compile(code, PAGE.name, "exec"), names)
    run = read_run(tmp_path / "runs" / "gpu")
    lines = list(run.lines("metrics"))
    assert [line["step"] for line in lines] == list(range(5))
    assert all(set(line["metrics"]) == {"loss", "grad_norm", "lr"} for line in lines)
    assert lines[-1]["metrics"]["loss"] == names["loss"].item()
    assert [line["name"] for line in run.lines("performance")] == ["forward"] * 5
    assert run.problems == []
