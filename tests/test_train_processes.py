"""One training shared by several processes, or split into several passes."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from helpers.training import tiny_config
from stylize.train.checkpoint import load_checkpoint
from stylize.train.loading import BatchShare
from stylize.train.loop import train

# What one of the processes runs: a training of four steps with a batch of four, its losses as JSON.
_PROGRAM = """
import json, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from helpers.training import tiny_config
from stylize.train.loop import train
folder = Path(sys.argv[2])
history = []
config = tiny_config(folder, batch_size=4, conditional=True, style=(folder / "style.png", folder / "photos" / "a.png"))
train(config, folder / "shared.pth", resume=False, on_step=lambda p: history.append(p.losses), device="cpu")
(folder / f"{sys.argv[3]}.json").write_text(json.dumps(history))
"""


def _styles(folder: Path) -> tuple[Path, Path]:
    return folder / "style.png", folder / "photos" / "a.png"


def _history(folder: Path, **changes: object) -> list[dict[str, float]]:
    history: list[dict[str, float]] = []
    config = tiny_config(folder, batch_size=4, conditional=True, style=_styles(folder), **changes)
    output = folder / "whole.pth"
    train(config, output, resume=False, on_step=lambda p: history.append(p.losses), device="cpu")
    return history


def _assert_same_curve(first: list[dict[str, float]], second: list[dict[str, float]]) -> None:
    for a, b in zip(first, second, strict=True):
        assert a.keys() == b.keys()
        for name in a:
            # Sums in another order; Adam's first steps amplify rounding where a gradient is nearly zero.
            assert a[name] == pytest.approx(b[name], rel=2e-3), name


def test_two_processes_give_the_curve_of_one(tmp_path: Path) -> None:
    whole = _history(tmp_path)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    tests = str(Path(__file__).parent)
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", _PROGRAM, tests, str(tmp_path), str(rank)],
            env=os.environ | {"RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port},
        )
        for rank in range(2)
    ]
    assert [process.wait(timeout=120) for process in processes] == [0, 0]
    for rank in range(2):
        _assert_same_curve(json.loads((tmp_path / f"{rank}.json").read_text()), whole)
    shared, alone = (load_checkpoint(tmp_path / f"{name}.pth") for name in ("shared", "whole"))
    assert shared.step == alone.step == 4
    for name, weight in alone.weights.items():
        torch.testing.assert_close(shared.weights[name], weight, rtol=0, atol=5e-3)


def test_passes_give_the_curve_of_a_whole_batch(tmp_path: Path) -> None:
    _assert_same_curve(_history(tmp_path, accumulate=4), _history(tmp_path))


def test_processes_and_passes_share_each_step_without_overlap() -> None:
    steps = range(3, 5)
    shares = [list(BatchShare(12, num_passes=2, rank=rank, num_processes=3, steps=steps)) for rank in range(3)]
    assert shares[1] == [[40, 41], [42, 43], [52, 53], [54, 55]]
    for number in range(2):
        seen = sorted(index for share in shares for batch in share[2 * number : 2 * number + 2] for index in batch)
        assert seen == list(range(36 + 12 * number, 48 + 12 * number))


def test_rejects_batches_that_cannot_be_shared(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"batch_size=3 must be a multiple of 2 \(1 processes, 2 passes each\)"):
        train(tiny_config(tmp_path, batch_size=3, accumulate=2), tmp_path / "x.pth", resume=False, on_step=print)


def test_curves_and_pictures_reach_tensorboard(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    config = tiny_config(tmp_path, steps=10, preview_every=10, tensorboard=tmp_path / "board")
    train(config, tmp_path / "x.pth", resume=False, on_step=lambda _: None, device="cpu")
    events = EventAccumulator(str(tmp_path / "board"))
    events.Reload()
    assert {"content", "style", "temporal", "total", "learning_rate"} <= set(events.Tags()["scalars"])
    assert [event.step for event in events.Scalars("total")] == [10]
    assert events.Tags()["images"] == ["preview"]
