"""The parts of the demo's trainer: text, model, schedule, device, checkpoints."""

from __future__ import annotations

import io
import itertools
import math
import pickle
from collections.abc import Iterable
from datetime import datetime, timezone
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="the demo trains with torch")

from foundry_fastlog.demo import app  # noqa: E402
from foundry_fastlog.demo.checkpoint import (  # noqa: E402  # after the check for torch
    CheckpointError,
    checkpoint_path,
    list_checkpoints,
    load_newest,
    save_checkpoint,
)
from foundry_fastlog.demo.config import (  # noqa: E402
    ConfigError,
    DataConfig,
    ModelConfig,
    TrainingConfig,
    load_config,
)
from foundry_fastlog.demo.data import Batches, load_corpus, validation_batches  # noqa: E402
from foundry_fastlog.demo.device import MemoryGauge, pick_device  # noqa: E402
from foundry_fastlog.demo.model import GPT  # noqa: E402
from foundry_fastlog.demo.train import learning_rate  # noqa: E402

Patch = pytest.MonkeyPatch
CPU = torch.device("cpu")
TINY = ModelConfig(layers=2, heads=2, width=16, context=12)


class Errors:
    """Stands for an ErrorTracker where only log_error() is called."""

    def __init__(self) -> None:
        self.seen: list[tuple[Exception, dict[str, Any]]] = []

    def log_error(self, error: Exception, **details: Any) -> None:
        self.seen.append((error, details))


def newest(folder: Path, errors: Errors | None = None, **options: Any) -> tuple[Path, Any]:
    found = load_newest(folder, errors or Errors(), **options)
    assert found is not None
    return found


def characters(batches: Iterable[Any]) -> set[int]:
    return {number for pair in batches for part in pair for number in part.flatten().tolist()}


def test_the_text_is_real_english_on_every_machine() -> None:
    """CPython's manual is there without a download, and long enough to learn from."""
    corpus = load_corpus(DataConfig(), context=64)
    text = corpus.decode(corpus.train)
    assert len(corpus.train) + len(corpus.validation) > 400_000
    assert text.startswith('The "assert" statement\n')
    assert text.count(" the ") > 3_000
    assert 90 < len(corpus.characters) < 200


def test_training_and_validation_text_do_not_overlap(tmp_path: Path) -> None:
    """The split is by position: joined again, the parts are the text, nothing twice."""
    path = tmp_path / "text"
    text = "".join(chr(0x4E00 + index) for index in range(1000))  # no character occurs twice
    path.write_text(text, encoding="utf-8")
    corpus = load_corpus(DataConfig(file=str(path), validation_fraction=0.25), context=8)
    assert corpus.decode(corpus.train) + corpus.decode(corpus.validation) == text
    assert len(corpus.validation) == 250

    batches = Batches(corpus.train, batch_size=64, context=8, seed=1, device=CPU)
    trained = characters(batches.next() for _ in range(100))
    assert trained == set(corpus.train.tolist())  # every character is reached, the last too
    options = {"batches": 50, "batch_size": 5, "context": 8, "device": CPU}
    validated = characters(validation_batches(corpus.validation, **options))
    assert validated == set(corpus.validation.tolist())
    assert not trained & validated


def test_batches_depend_on_the_seed_alone() -> None:
    """The same whatever else draws random numbers; targets are the inputs a character later."""

    def draw(seed: int) -> Any:
        batches = Batches(torch.arange(1000), batch_size=4, context=7, seed=seed, device=CPU)
        torch.rand(3)
        drawn = [batches.next() for _ in range(3)]
        for inputs, targets in drawn:
            assert inputs.shape == targets.shape == (4, 7)
            assert torch.equal(targets, inputs + 1)
        return [inputs for inputs, _ in drawn]

    assert all(map(torch.equal, draw(5), draw(5)))
    assert not all(map(torch.equal, draw(5), draw(6)))


@pytest.mark.parametrize(
    ("text", "fraction", "part"),
    [("short", 0.5, "training"), ("x" * 100, 0.01, "validation"), ("", 0.5, "training")],
)
def test_a_text_may_be_too_short(tmp_path: Path, text: str, fraction: float, part: str) -> None:
    """The message says which part is too short and what could be changed, or that it is gone."""
    path = tmp_path / "text"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=rf"the {part} part .* fewer than .* = 9\. Use a longer"):
        load_corpus(DataConfig(file=str(path), validation_fraction=fraction), context=8)
    path.unlink()
    with pytest.raises(ConfigError, match=r"data\.file: .*text cannot be read"):
        load_corpus(DataConfig(file=str(path)), context=8)


@pytest.fixture
def model() -> GPT:
    torch.manual_seed(3)
    return GPT(11, TINY).eval()


def test_logits_have_one_score_for_each_character(model: GPT) -> None:
    assert model(torch.zeros(3, 12, dtype=torch.int64)).shape == (3, 12, 11)
    assert model(torch.zeros(1, 1, dtype=torch.int64)).shape == (1, 1, 11)


@pytest.mark.parametrize("position", [0, 1, 5, 11])
def test_a_later_character_changes_no_earlier_logits(model: GPT, position: int) -> None:
    """The model is causal: it cannot look at what it has to predict."""
    tokens = torch.randint(11, (2, 12), generator=torch.Generator().manual_seed(1))
    changed = tokens.clone()
    changed[:, position] = (changed[:, position] + 1) % 11
    with torch.no_grad():
        before, after = model(tokens), model(changed)
    assert torch.equal(before[:, :position], after[:, :position])
    assert not torch.allclose(before[:, position:], after[:, position:])
    # Attention looks back over the whole context, not only at the last character.
    assert not torch.allclose(before[:, -1], after[:, -1])


def test_an_untrained_model_knows_nothing(model: GPT) -> None:
    """The first loss is close to that of a uniform guess, ln(vocabulary); each weight learns."""
    numbers = torch.randint(11, (64, 13), generator=torch.Generator().manual_seed(1))
    loss = model.loss(numbers[:, :-1], numbers[:, 1:])
    assert loss.item() == pytest.approx(math.log(11), abs=0.1)
    loss.backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    assert model.size() == sum(parameter.numel() for parameter in model.parameters())


def test_writing_follows_the_seed_and_leaves_the_random_state_alone(model: GPT) -> None:
    """A sample in the middle of a run does not change the run."""
    prompt = torch.tensor([1, 2, 3])
    state = torch.get_rng_state()
    model.train()
    first = model.generate(prompt, 30, seed=1)  # longer than the context of 12
    assert torch.equal(first, model.generate(prompt, 30, seed=1))
    assert not torch.equal(first, model.generate(prompt, 30, seed=2))
    assert first.shape == (33,)
    assert torch.equal(first[:3], prompt)
    assert torch.equal(torch.get_rng_state(), state)
    assert model.training


def test_the_learning_rate_warms_up_and_falls() -> None:
    """It rises in a line to its peak, then falls to the minimum, never above the peak."""
    training = TrainingConfig(steps=100, warmup_steps=10, learning_rate=1.0, min_learning_rate=0.1)
    rates = [learning_rate(step, training) for step in range(1, 101)]
    assert rates[:10] == pytest.approx([step / 10 for step in range(1, 11)])
    assert all(later < earlier for earlier, later in itertools.pairwise(rates[9:]))
    assert rates[-1] == pytest.approx(0.1)
    for warmup in (0, 3, 50):  # of a run that may be shorter
        training = TrainingConfig(steps=3, warmup_steps=warmup)
        rates = [learning_rate(step, training) for step in range(1, 4)]
        assert all(0.0 < rate <= training.learning_rate for rate in rates)


def test_auto_takes_a_device_that_is_there() -> None:
    """With a GPU it is the GPU, without one the CPU; of another it says what to use instead."""
    assert pick_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    assert pick_device("cpu") == CPU
    with pytest.raises(ConfigError, match=r"device 'cuda:97': torch sees .* Use --device cpu"):
        pick_device("cuda:97")


def test_the_memory_gauge_sees_memory_that_is_taken() -> None:
    """But where only the peak is told. Meanwhile the system may take other pages back."""
    gauge = MemoryGauge(CPU)
    before = gauge.read_mb()
    gain = 32.0 if Path("/proc/self/statm").exists() else 0.0
    taken = []
    while len(taken) < 8 and (not taken or gauge.read_mb() < before + gain):
        taken.append(torch.ones(16 << 20, dtype=torch.float32))
    assert gauge.read_mb() >= before + gain > 0.0
    gauge.close()


def test_a_checkpoint_comes_back_as_it_was_saved(tmp_path: Path) -> None:
    state = {"step": 3, "model": {"w": torch.arange(5.0)}, "text": "x"}
    path = checkpoint_path(tmp_path / "new", 3)
    size = save_checkpoint(path, state, keep=2)
    assert size == path.stat().st_size > 0
    assert [entry.name for entry in path.parent.iterdir()] == ["step-000003.pt"]
    errors = Errors()
    found, loaded = newest(path.parent, errors)
    assert torch.equal(loaded["model"]["w"], state["model"]["w"])
    assert (found, loaded["step"], loaded["text"], errors.seen) == (path, 3, "x", [])


def test_only_the_newest_checkpoints_are_kept(tmp_path: Path) -> None:
    """Old ones are deleted by step, not by name: step 1,000,000 is newer than 999,999."""
    (tmp_path / "notes.txt").write_text("stays")
    for step in (5, 999_999, 1_000_000):
        save_checkpoint(checkpoint_path(tmp_path, step), {"step": step}, keep=2)
    names = [path.name for path in list_checkpoints(tmp_path)]
    assert names == ["step-1000000.pt", "step-999999.pt"]
    assert (tmp_path / "notes.txt").exists()


def test_a_save_that_fails_leaves_the_old_checkpoint(tmp_path: Path) -> None:
    """What cannot be pickled fails before the rename; the last checkpoint stays whole."""
    path = checkpoint_path(tmp_path, 1)
    save_checkpoint(path, {"step": 1}, keep=1)
    with pytest.raises((AttributeError, pickle.PicklingError), match="lambda"):
        save_checkpoint(path, {"step": lambda: 2}, keep=1)
    assert newest(tmp_path)[1] == {"step": 1}
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("kind", [OSError, KeyboardInterrupt])
def test_what_stops_a_save(tmp_path: Path, monkeypatch: Patch, kind: type[BaseException]) -> None:
    """A full disk, or Ctrl-C: torch, writing the file itself, would make a RuntimeError of it."""

    class Stopped(io.BytesIO):
        def write(self, data: object) -> int:
            raise kind("stopped")

    path = checkpoint_path(tmp_path, 1)
    save_checkpoint(path, {"step": 1}, keep=1)
    monkeypatch.setattr(Path, "open", lambda *_: Stopped())
    with pytest.raises(kind, match="stopped"):
        save_checkpoint(path, {"step": 2}, keep=1)
    monkeypatch.undo()
    assert torch.load(path)["step"] == 1


@pytest.mark.parametrize("left", [0, 1, 100, 0.5, -1])
def test_a_torn_checkpoint_is_recorded(tmp_path: Path, left: float) -> None:
    """Wherever the file is cut, loading falls back and the error says which file it was."""
    save_checkpoint(checkpoint_path(tmp_path, 1), {"step": 1}, keep=9)
    whole = checkpoint_path(tmp_path, 2)
    save_checkpoint(whole, {"step": 2, "model": torch.ones(1000)}, keep=9)
    data = whole.read_bytes()
    cut = int(len(data) * left) if isinstance(left, float) else left
    whole.write_bytes(data[:cut])
    errors = Errors()
    assert newest(tmp_path, errors, step=7)[1] == {"step": 1}
    [(error, details)] = errors.seen
    assert isinstance(error, CheckpointError)
    assert error.__cause__ is not None
    assert (details["step"], details["context"]["path"]) == (7, str(whole))


def test_no_checkpoint_is_none(tmp_path: Path) -> None:
    """Nor one that holds code: loading data from elsewhere must not execute it."""
    witness = tmp_path / "witness"

    class Attack:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (witness,))

    assert load_newest(tmp_path / "missing", Errors()) is None
    checkpoint_path(tmp_path, 1).write_bytes(b"torn")
    torch.save({"step": Attack()}, checkpoint_path(tmp_path, 2))
    errors = Errors()
    assert load_newest(tmp_path, errors) is None
    assert len(errors.seen) == 2
    assert not witness.exists()


def test_runs_of_one_second(tmp_path: Path, monkeypatch: Patch) -> None:
    monkeypatch.chdir(tmp_path)
    moment = datetime(2025, 9, 30, 14, 30, tzinfo=timezone.utc)
    local = SimpleNamespace(astimezone=lambda: moment)
    monkeypatch.setattr(app, "datetime", SimpleNamespace(now=lambda: local))
    config = load_config(None)
    names = []
    for _ in range(3):
        run = app.choose_run_directory(config, None)
        run.mkdir(parents=True)
        names.append(run.name)
    first = f"{config.experiment_name}-2025-09-30_14-30-00"
    assert names == [first, f"{first}-2", f"{first}-3"]


def test_a_directory_that_cannot_be_had_is_an_error_with_advice(tmp_path: Path) -> None:
    config = load_config(None)
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ConfigError, match=r"/run cannot be created: .*Choose another with --out"):
        app.open_logging(tmp_path / "file" / "run", config)
    with (
        app.open_logging(tmp_path / "run", config),
        pytest.raises(ConfigError, match="logging: this process already records in"),
    ):
        app.open_logging(tmp_path / "run", config)
